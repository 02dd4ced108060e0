//! Values whose drop may take long: a gigabyte of memory, or the last descriptor of a file without a name, takes the kernel
//! some 0.1 s to free. Deferred, the drop happens on a thread that lives only as long as there is something to drop. It
//! must never make its caller wait. What is not dropped when the process ends, the kernel frees.

use std::collections::VecDeque;
use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

/// What takes the kernel longer to free than others may wait, some 0.1 ms for 1 MiB of shared memory, is freed elsewhere.
pub const LARGE_BYTES: u64 = 8 << 20;

/// A value that is dropped where it is, or elsewhere once `defer` was called.
#[derive(Debug)]
pub struct Deferrable<T: Send + 'static> {
    value: ManuallyDrop<T>,
    is_deferred: bool,
}

impl<T: Send + 'static> Deferrable<T> {
    /// Dropped where it is.
    pub fn new(value: T) -> Deferrable<T> {
        Deferrable { value: ManuallyDrop::new(value), is_deferred: false }
    }

    /// From now on its drop would take too long here, or not any more.
    pub fn defer(&mut self, is_deferred: bool) {
        self.is_deferred = is_deferred;
    }

    /// The value itself.
    pub fn into_inner(self) -> T {
        let mut this = ManuallyDrop::new(self);
        // SAFETY: the value is taken once, as `this` is never dropped.
        unsafe { ManuallyDrop::take(&mut this.value) }
    }
}

impl<T: Send + 'static> Deref for Deferrable<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: Send + 'static> DerefMut for Deferrable<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

impl<T: Send + 'static> Drop for Deferrable<T> {
    fn drop(&mut self) {
        // SAFETY: the value is taken once, here, and this one is not used any more.
        let value = unsafe { ManuallyDrop::take(&mut self.value) };
        if self.is_deferred {
            drop_elsewhere(Box::new(value));
        }
    }
}

#[derive(Default)]
struct Waiting {
    values: VecDeque<Box<dyn Send>>,
    /// A thread sees to it that they are dropped.
    has_thread: bool,
}

static WAITING: Mutex<Waiting> = Mutex::new(Waiting { values: VecDeque::new(), has_thread: false });

fn drop_elsewhere(value: Box<dyn Send>) {
    let mut waiting = waiting();
    waiting.values.push_back(value);
    if !waiting.has_thread {
        // Without a thread, the next one tries again.
        waiting.has_thread = thread::Builder::new().name("tftp-drop".into()).spawn(drop_all).is_ok();
    }
}

fn drop_all() {
    loop {
        let value = {
            let mut waiting = waiting();
            let value = waiting.values.pop_front();
            waiting.has_thread = value.is_some();
            value
        };
        // Without the lock.
        match value {
            // A panic of one must not end the thread: it counts as there, and others wait for it.
            Some(value) => drop(catch_unwind(AssertUnwindSafe(|| drop(value)))),
            None => return,
        }
    }
}

fn waiting() -> MutexGuard<'static, Waiting> {
    // Each change is one push or pop, so a panic elsewhere does not spoil it.
    WAITING.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::panic::resume_unwind;
    use std::sync::mpsc::{Sender, channel};
    use std::thread::ThreadId;
    use std::time::Duration;

    use super::*;

    /// Says where it was dropped.
    struct Reporter(Sender<ThreadId>);

    impl Drop for Reporter {
        fn drop(&mut self) {
            self.0.send(thread::current().id()).unwrap();
        }
    }

    #[test]
    fn a_drop_happens_here_unless_it_is_deferred() {
        let (dropped, places) = channel();
        let here = thread::current().id();
        for is_deferred in [false, true, true, false] {
            let mut value = Deferrable::new(Reporter(dropped.clone()));
            value.defer(is_deferred);
            drop(value);
            let place = places.recv_timeout(Duration::from_secs(10)).unwrap();
            assert_eq!(place != here, is_deferred);
        }
    }

    #[test]
    fn what_was_taken_out_is_dropped_by_its_taker() {
        let (dropped, places) = channel();
        let mut value = Deferrable::new(Reporter(dropped));
        value.defer(true);
        let taken = value.into_inner();
        assert!(places.try_recv().is_err());
        drop(taken);
        assert_eq!(places.try_recv(), Ok(thread::current().id()));
    }

    #[test]
    fn each_of_many_is_dropped_once() {
        let (dropped, places) = channel();
        for _ in 0..1000 {
            let mut value = Deferrable::new(Reporter(dropped.clone()));
            value.defer(true);
        }
        drop(dropped);
        let timeout = Duration::from_secs(10);
        assert_eq!(std::iter::from_fn(|| places.recv_timeout(timeout).ok()).count(), 1000);
    }

    /// Its drop panics, without a message.
    struct Faulty;

    impl Drop for Faulty {
        fn drop(&mut self) {
            resume_unwind(Box::new(()));
        }
    }

    #[test]
    fn a_drop_that_panics_keeps_no_other_from_being_dropped() {
        let (dropped, places) = channel();
        for _ in 0..3 {
            let mut faulty = Deferrable::new(Faulty);
            faulty.defer(true);
            drop(faulty);
            let mut value = Deferrable::new(Reporter(dropped.clone()));
            value.defer(true);
            drop(value);
            assert!(places.recv_timeout(Duration::from_secs(10)).is_ok());
        }
    }
}
