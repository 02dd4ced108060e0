//! Why a request or a transfer is turned down, in the words of the protocol: an ERROR code and a short message.
//! It never carries a path or anything else of the machine: the message goes to a stranger.

use rustix::io::Errno;
use tftpbench_proto::ErrorCode;

/// Room that `reply` buffers need: the longest ERROR of this crate.
pub const REPLY_BYTES_MAX: usize = 128;

/// The ERROR that a client is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// RFC 1350 section 5 error code.
    pub(crate) code: ErrorCode,
    /// A few words for people.
    pub(crate) message: &'static str,
}

impl Refusal {
    pub(crate) const ESCAPES: Refusal = Refusal::new(ErrorCode::ACCESS_VIOLATION, "path leaves the root");
    pub(crate) const NOT_REGULAR: Refusal = Refusal::new(ErrorCode::ACCESS_VIOLATION, "not a regular file");
    pub(crate) const WRITE_OFF: Refusal = Refusal::new(ErrorCode::ACCESS_VIOLATION, "writing is off");
    pub(crate) const EXISTS: Refusal = Refusal::new(ErrorCode::FILE_EXISTS, "file exists");
    pub(crate) const DISK_FULL: Refusal = Refusal::new(ErrorCode::DISK_FULL, "disk full");
    pub(crate) const MEMORY_FULL: Refusal = Refusal::new(ErrorCode::DISK_FULL, "memory store full");
    pub(crate) const CHANGED: Refusal =
        Refusal::new(ErrorCode::NOT_DEFINED, "file changed while it was served");
    pub(crate) const TOO_MANY: Refusal = Refusal::new(ErrorCode::NOT_DEFINED, "too many transfers");
    pub(crate) const STOPPING: Refusal = Refusal::new(ErrorCode::NOT_DEFINED, "server is stopping");

    pub(crate) const fn new(code: ErrorCode, message: &'static str) -> Refusal {
        Refusal { code, message }
    }
}

impl From<Errno> for Refusal {
    fn from(errno: Errno) -> Refusal {
        match errno {
            // A name too long to exist is simply not there.
            Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG => {
                Refusal::new(ErrorCode::FILE_NOT_FOUND, "file not found")
            }
            // openat2(2): LOOP is a symbolic link under NO_SYMLINKS, XDEV an escape under BENEATH.
            Errno::LOOP | Errno::XDEV => Refusal::ESCAPES,
            Errno::ISDIR | Errno::NXIO => Refusal::NOT_REGULAR,
            Errno::ACCESS | Errno::PERM | Errno::ROFS => {
                Refusal::new(ErrorCode::ACCESS_VIOLATION, "permission denied")
            }
            Errno::EXIST => Refusal::EXISTS,
            Errno::NOSPC | Errno::DQUOT | Errno::FBIG => Refusal::DISK_FULL,
            Errno::MFILE | Errno::NFILE => {
                Refusal::new(ErrorCode::NOT_DEFINED, "server is out of open files")
            }
            _ => Refusal::new(ErrorCode::NOT_DEFINED, "input or output failed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Root may do anything, so most of these cannot be provoked everywhere.
    #[test]
    fn what_the_kernel_refuses_has_the_code_that_the_rfc_has_for_it() {
        for (errno, code) in [
            (Errno::NOENT, 1),
            (Errno::NOTDIR, 1),
            (Errno::ACCESS, 2),
            (Errno::PERM, 2),
            (Errno::ROFS, 2),
            (Errno::ISDIR, 2),
            (Errno::NOSPC, 3),
            (Errno::DQUOT, 3),
            (Errno::EXIST, 6),
            (Errno::IO, 0),
        ] {
            assert_eq!(Refusal::from(errno).code, ErrorCode(code), "{errno:?}");
        }
    }
}
