//! The files that are being read: one descriptor a file, and where it pays one mapping, for all who read it at a time.
//! It must never lead from a name to a file: whoever asks has resolved and opened the path himself. Only `DiskFile` does.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use rustix::fd::OwnedFd;
use rustix::fs::{self, Stat};
use tftpbench_net::FileMapping;

use crate::refusal::Refusal;

/// One state of one file. A file that was changed in place or replaced has another, as far as the kernel's clock ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Version {
    device: u64,
    inode: u64,
    pub(crate) size: u64,
    modified_s: i64,
    modified_ns: u64,
}

impl Version {
    #[allow(clippy::unnecessary_cast, reason = "the widths of these fields differ between architectures")]
    pub(crate) fn of(stat: &Stat) -> Version {
        Version {
            device: stat.st_dev as u64,
            inode: stat.st_ino as u64,
            size: u64::try_from(stat.st_size).unwrap_or(0),
            modified_s: stat.st_mtime as i64,
            modified_ns: stat.st_mtime_nsec as u64,
        }
    }
}

/// All files that have a reader.
#[derive(Debug, Default)]
pub(crate) struct OpenFiles {
    /// An inode number is not given to another file while a descriptor keeps the old one.
    files: Mutex<HashMap<Version, Weak<OpenFile>>>,
}

impl OpenFiles {
    /// The file that others have open in this state, and `file` is closed; else `file` itself, for others to share.
    pub(crate) fn share(self: &Arc<Self>, file: OwnedFd, version: Version) -> Arc<OpenFile> {
        let mut files = self.files();
        if let Some(open) = files.get(&version).and_then(Weak::upgrade) {
            return open;
        }
        let (mapping, listed) = (OnceLock::new(), Some(Arc::clone(self)));
        let open = Arc::new(OpenFile { file, version, mapping, listed });
        files.insert(version, Arc::downgrade(&open));
        open
    }

    fn files(&self) -> MutexGuard<'_, HashMap<Version, Weak<OpenFile>>> {
        // The map is never left half-changed, so a panic elsewhere does not spoil it.
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An open regular file; closed and unmapped when its last reader goes.
#[derive(Debug)]
pub(crate) struct OpenFile {
    file: OwnedFd,
    version: Version,
    mapping: OnceLock<Option<Arc<FileMapping>>>,
    listed: Option<Arc<OpenFiles>>,
}

impl OpenFile {
    /// Nobody else finds it.
    pub(crate) fn unshared(file: OwnedFd, version: Version) -> Arc<OpenFile> {
        Arc::new(OpenFile { file, version, mapping: OnceLock::new(), listed: None })
    }

    pub(crate) fn descriptor(&self) -> &OwnedFd {
        &self.file
    }

    /// As it was when it was opened.
    pub(crate) fn version(&self) -> &Version {
        &self.version
    }

    /// As it is now.
    pub(crate) fn stat(&self) -> Result<Stat, Refusal> {
        Ok(fs::fstat(&self.file)?)
    }

    /// The whole of it, mapped on the first call; none where that is refused.
    pub(crate) fn mapping(&self) -> Option<&Arc<FileMapping>> {
        self.mapping.get_or_init(|| FileMapping::new(&self.file, self.version.size).ok()).as_ref()
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        let Some(listed) = &self.listed else { return };
        let mut files = listed.files();
        // Meanwhile somebody may have opened it anew.
        if files.get(&self.version).is_some_and(|open| open.strong_count() == 0) {
            files.remove(&self.version);
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::fs::{CWD, Mode, OFlags};
    use tftpbench_testclient::Folder;

    use super::*;

    fn opened(files: &Arc<OpenFiles>, folder: &Folder, name: &str) -> Arc<OpenFile> {
        let file = fs::openat(CWD, folder.file(name), OFlags::RDONLY, Mode::empty()).unwrap();
        let version = Version::of(&fs::fstat(&file).unwrap());
        files.share(file, version)
    }

    #[test]
    fn readers_of_one_state_of_one_file_share_it_until_the_last_one_goes() {
        let (files, folder) = (Arc::new(OpenFiles::default()), Folder::new());
        folder.put("f", b"one");
        folder.put("g", b"two");
        let first = opened(&files, &folder, "f");
        let second = opened(&files, &folder, "f");
        assert!(Arc::ptr_eq(&first, &second));
        assert!(!Arc::ptr_eq(&first, &opened(&files, &folder, "g")));
        // Under the same name and in the same inode, but another state.
        folder.put("f", b"three");
        let third = opened(&files, &folder, "f");
        assert!(!Arc::ptr_eq(&first, &third));
        assert_eq!(third.version().size, 5);
        drop(first);
        assert_eq!(files.files().len(), 2);
        drop(second);
        assert_eq!(files.files().len(), 1);
        drop(third);
        assert!(files.files().is_empty());
    }

    #[test]
    fn all_readers_of_a_file_have_one_mapping_and_an_empty_file_has_none() {
        let (files, folder) = (Arc::new(OpenFiles::default()), Folder::new());
        folder.put("f", b"one");
        folder.put("empty", b"");
        let (first, second) = (opened(&files, &folder, "f"), opened(&files, &folder, "f"));
        assert!(Arc::ptr_eq(first.mapping().unwrap(), second.mapping().unwrap()));
        assert!(opened(&files, &folder, "empty").mapping().is_none());
    }
}
