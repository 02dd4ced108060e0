//! The extension module `tftpbench._core`: the only crate that knows Python, and it holds no logic.
//!
//! Configuration crosses as one frozen Python object whose attributes are read by name; results cross as plain
//! dictionaries and columns of bytes. Long calls release the GIL; signals stay Python's affair.

mod ceiling;
mod load;
mod serve;

use pyo3::exceptions::{PyOSError, PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use tftpbench_ceiling::CeilingError;
use tftpbench_load::LoadError;

/// The native half of tftpbench.
#[pymodule(gil_used = false)]
mod _core {
    #[pymodule_export]
    use crate::ceiling::measure_ceiling;
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

/// ValueError: the caller's values. OSError: the machine refused. RuntimeError: a fault of ours.
pub(crate) fn from_load(error: LoadError) -> PyErr {
    let text = error.to_string();
    match error {
        LoadError::Config(_) | LoadError::Remote(_) => PyValueError::new_err(text),
        LoadError::OpenFiles(_) | LoadError::TooMany { .. } | LoadError::Os { .. } => {
            PyOSError::new_err(text)
        }
        LoadError::Internal(_) => PyRuntimeError::new_err(text),
    }
}

/// The same for the ceiling.
pub(crate) fn from_ceiling(error: CeilingError) -> PyErr {
    let text = error.to_string();
    match error {
        CeilingError::Config(_) => PyValueError::new_err(text),
        CeilingError::OpenFiles(_) | CeilingError::Os { .. } => PyOSError::new_err(text),
        CeilingError::Internal(_) => PyRuntimeError::new_err(text),
    }
}

/// A word from Python as one of the values that are allowed.
///
/// Raises ValueError with the allowed words for any other.
pub(crate) fn choice<T: Copy>(key: &str, given: &str, allowed: &[(&str, T)]) -> PyResult<T> {
    let found = allowed.iter().find(|(name, _)| *name == given).map(|(_, value)| *value);
    found.ok_or_else(|| {
        let names: Vec<&str> = allowed.iter().map(|(name, _)| *name).collect();
        PyValueError::new_err(format!("{key}: {given} is not one of {}", names.join(", ")))
    })
}
