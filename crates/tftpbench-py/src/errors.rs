//! One mapping from our errors to Python's built-in ones; the Python package makes its own tree of them.

use pyo3::exceptions::{PyOSError, PyRuntimeError, PyValueError};
use pyo3::{PyErr, PyResult};
use tftpbench_ceiling::CeilingError;
use tftpbench_load::LoadError;

/// ValueError: the caller's values. OSError: the machine refused. RuntimeError: a fault of ours.
pub(crate) fn from_load(error: LoadError) -> PyErr {
    let text = error.to_string();
    match error {
        LoadError::Config(_) | LoadError::Remote(_) | LoadError::GivenUp => PyValueError::new_err(text),
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
