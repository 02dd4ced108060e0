//! The extension module `tftpbench._core`: the only crate that knows Python, and it holds no logic.
//!
//! Configuration crosses as one frozen Python object whose attributes are read by name; results cross as plain
//! dictionaries and columns of bytes. Long calls release the GIL; signals stay Python's affair.

mod ceiling;
mod errors;
mod load;
mod serve;

use pyo3::prelude::*;

/// The native half of tftpbench.
#[pymodule(gil_used = false)]
mod _core {
    #[pymodule_export]
    use crate::ceiling::{answer_datagrams, measure_ceiling};
    #[pymodule_export]
    use crate::load::{LoadOutcome, first_difference, machine_name, ring_refusal, run_load, write_contents};
    #[pymodule_export]
    use crate::serve::{Stop, error_meanings, open_files, serve, serve_defaults};

    /// Version of the native half; equals the package's.
    #[pymodule_export]
    const VERSION: &str = env!("CARGO_PKG_VERSION");

    /// "release" or "debug"; figures from a debug build are worthless and are marked.
    #[pymodule_export]
    const BUILD_PROFILE: &str = if cfg!(debug_assertions) { "debug" } else { "release" };
}
