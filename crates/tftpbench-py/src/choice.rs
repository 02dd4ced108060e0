//! A word from Python as one of the values that are allowed.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

/// Raises ValueError with the allowed words for any other.
pub(crate) fn choice<T: Copy>(key: &str, given: &str, allowed: &[(&str, T)]) -> PyResult<T> {
    let found = allowed.iter().find(|(name, _)| *name == given).map(|(_, value)| *value);
    found.ok_or_else(|| {
        let names: Vec<&str> = allowed.iter().map(|(name, _)| *name).collect();
        PyValueError::new_err(format!("{key}: {given} is not one of {}", names.join(", ")))
    })
}
