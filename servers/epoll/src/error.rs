//! What the kernel refused, as the server's error.

use std::io;

use tftpbench_serve::ServeError;

/// For `map_err`: `action` is the call that was refused.
pub(crate) fn kernel(action: &'static str) -> impl Fn(io::Error) -> ServeError {
    move |source| ServeError::Kernel { action, source }
}
