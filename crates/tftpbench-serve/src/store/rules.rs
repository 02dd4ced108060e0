//! What both stores hold to: what is too large to be freed at once, and which name an upload may take.

use rustix::fs::FileType;

use crate::refusal::Refusal;

/// What takes the kernel longer to free than others may wait, some 0.1 ms for 1 MiB of shared memory, is freed elsewhere.
pub(crate) const LARGE_BYTES: u64 = 8 << 20;

/// Whether an upload may take a name, judged by what stands under it now.
pub(crate) fn may_create(existing: Option<FileType>, overwrite: bool) -> Result<(), Refusal> {
    match existing {
        None => Ok(()),
        Some(FileType::RegularFile) if overwrite => Ok(()),
        Some(FileType::RegularFile) => Err(Refusal::EXISTS),
        Some(_) => Err(Refusal::NOT_REGULAR),
    }
}
