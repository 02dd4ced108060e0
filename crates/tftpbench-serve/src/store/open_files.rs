//! The files that are being read: one descriptor a file for all that read it at a time, and what was encoded of it. It
//! must never lead from a name to a file: the caller has resolved and opened the path.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use rustix::fd::OwnedFd;
use rustix::fs::{self, Stat};
use tftpbench_net::{DatagramRun, Deferrable, LARGE_BYTES};
use tftpbench_proto::Rollover;

use crate::refusal::Refusal;

/// What may be kept of all files together. Beyond it each reader reads for itself.
const KEPT_BYTES_MAX: usize = 64 << 20;

/// What keeping a run costs beside its bytes, at most: a client may ask for many that are small.
const ENTRY_BYTES: usize = 192;

fn cost(run: &DatagramRun) -> usize {
    run.bytes() + ENTRY_BYTES
}

/// What tells runs of one file apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct RunKey {
    pub(crate) blksize: u16,
    pub(crate) rollover: Rollover,
    pub(crate) blocks: u64,
    pub(crate) number: u64,
}

#[cfg(test)]
impl RunKey {
    pub(crate) fn numbered(number: u64) -> RunKey {
        RunKey { blksize: 512, rollover: Rollover::Zero, blocks: 1, number }
    }
}

/// One state of one file. A file that was changed in place or replaced has another, as far as the kernel's clock ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Version {
    device: u64,
    inode: u64,
    pub(crate) size: u64,
    modified_s: i64,
    modified_ns: u64,
    /// When anything of it last changed, its links too (ctime). Unlike the modification time it can't be set back, so
    /// two readers share only states that have the same one. A reader under way does not heed it.
    changed_s: i64,
    changed_ns: u64,
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
            changed_s: stat.st_ctime as i64,
            changed_ns: stat.st_ctime_nsec as u64,
        }
    }

    /// The same but for what the change of a name changes.
    pub(crate) fn has_contents_of(&self, before: &Version) -> bool {
        Version { changed_s: before.changed_s, changed_ns: before.changed_ns, ..*self } == *before
    }
}

/// All files that have a reader.
#[derive(Debug, Default)]
pub(crate) struct OpenFiles {
    /// An inode number is not given to another file while a descriptor keeps the old one.
    files: Mutex<HashMap<Version, Weak<OpenFile>>>,
    kept_bytes: AtomicUsize,
}

impl OpenFiles {
    /// The file that others have open in this state, and `file` is closed; else `file` itself, for others to share.
    pub(crate) fn share(self: &Arc<Self>, file: OwnedFd, version: Version) -> Arc<OpenFile> {
        let mut files = self.files();
        if let Some(open) = files.get(&version).and_then(Weak::upgrade) {
            return open;
        }
        let (runs, listed) = (Mutex::default(), Some(Arc::clone(self)));
        let open = Arc::new(OpenFile { file: Deferrable::new(file), version, runs, listed });
        files.insert(version, Arc::downgrade(&open));
        open
    }

    fn files(&self) -> MutexGuard<'_, HashMap<Version, Weak<OpenFile>>> {
        // The map is never left half-changed, so a panic elsewhere does not spoil it.
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An open regular file; closed and forgotten when its last reader goes.
#[derive(Debug)]
pub(crate) struct OpenFile {
    /// The last descriptor of a large file without a name takes long to close.
    file: Deferrable<OwnedFd>,
    version: Version,
    runs: Mutex<HashMap<RunKey, Arc<DatagramRun>>>,
    listed: Option<Arc<OpenFiles>>,
}

impl OpenFile {
    /// No other reader finds it.
    pub(crate) fn unshared(file: OwnedFd, version: Version) -> Arc<OpenFile> {
        Arc::new(OpenFile { file: Deferrable::new(file), version, runs: Mutex::default(), listed: None })
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
        Ok(fs::fstat(&*self.file)?)
    }

    /// What was kept under this key.
    pub(crate) fn kept(&self, key: &RunKey) -> Option<Arc<DatagramRun>> {
        self.runs().get(key).map(Arc::clone)
    }

    /// Keeps a part of this state of the file until the last reader goes, if there is room.
    pub(crate) fn keep(&self, key: RunKey, run: &Arc<DatagramRun>) {
        let Some(listed) = &self.listed else { return };
        let before = listed.kept_bytes.fetch_add(cost(run), Ordering::Relaxed);
        let has_room = before.saturating_add(cost(run)) <= KEPT_BYTES_MAX;
        let surplus = match has_room {
            true => self.runs().insert(key, Arc::clone(run)),
            false => Some(Arc::clone(run)),
        };
        if let Some(surplus) = surplus {
            listed.kept_bytes.fetch_sub(cost(&surplus), Ordering::Relaxed);
        }
    }

    fn runs(&self) -> MutexGuard<'_, HashMap<RunKey, Arc<DatagramRun>>> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        if self.version.size >= LARGE_BYTES {
            let is_nameless = self.stat().is_ok_and(|stat| stat.st_nlink == 0);
            self.file.defer(is_nameless);
        }
        let Some(listed) = &self.listed else { return };
        let kept_bytes = self.runs().values().map(|run| cost(run)).sum();
        listed.kept_bytes.fetch_sub(kept_bytes, Ordering::Relaxed);
        let mut files = listed.files();
        // Meanwhile it may have been opened anew.
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

    fn run(bytes: usize) -> Arc<DatagramRun> {
        DatagramRun::new(vec![0; bytes], 516)
    }

    #[test]
    fn what_is_kept_is_bounded_counted_once_and_given_back() {
        let (files, folder) = (Arc::new(OpenFiles::default()), Folder::new());
        folder.put("f", b"one");
        let file = opened(&files, &folder, "f");
        let kept = || files.kept_bytes.load(Ordering::Relaxed);
        let [one, another, third] = [1, 2, 3].map(RunKey::numbered);
        file.keep(one, &run(1000));
        file.keep(one, &run(1000));
        assert_eq!(kept(), 1000 + ENTRY_BYTES, "two readers may lay out the same at one time");
        file.keep(another, &run(KEPT_BYTES_MAX - 1000 - 2 * ENTRY_BYTES));
        file.keep(third, &run(1));
        assert_eq!(kept(), KEPT_BYTES_MAX);
        assert_eq!([one, another, third].map(|key| file.kept(&key).is_some()), [true, true, false]);
        drop(file);
        assert_eq!(kept(), 0);
    }
}
