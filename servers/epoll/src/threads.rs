//! Several loops at once: a thread each, on a CPU each where there are enough. One that fails ends all of them.
//! It must never know what they do.

use std::panic::resume_unwind;
use std::thread;

use tftpbench_net::{Stop, cpus};
use tftpbench_serve::ServeError;

/// Runs all loops until each has ended, and returns the first error, or goes on with the first panic. One alone runs on
/// the calling thread, wherever that may run.
pub(crate) fn run<L>(mut loops: Vec<L>, stop: &Stop) -> Result<(), ServeError>
where
    L: FnOnce() -> Result<(), ServeError> + Send,
{
    if loops.len() == 1 {
        return loops.pop().map_or(Ok(()), |alone| alone());
    }
    let allowed = cpus::allowed().unwrap_or_default();
    let pins = if allowed.len() >= loops.len() { allowed } else { Vec::new() };
    let ended: Vec<_> = thread::scope(|scope| {
        let spawn = |(index, serve): (usize, L)| {
            let (guard, pin) = (StopOnFailure { stop, is_armed: true }, pins.get(index).copied());
            let body = move || guard.run(pin, serve);
            thread::Builder::new().name(format!("tftp-worker-{index}")).spawn_scoped(scope, body)
        };
        let threads: Vec<_> = loops.into_iter().enumerate().map(spawn).collect();
        let join = |thread: std::io::Result<thread::ScopedJoinHandle<'_, _>>| match thread {
            Ok(thread) => thread.join(),
            Err(error) => Ok(Err(ServeError::kernel("clone")(error))),
        };
        threads.into_iter().map(join).collect()
    });
    ended.into_iter().try_for_each(|ended| ended.unwrap_or_else(|panic| resume_unwind(panic)))
}

/// A loop that is gone leaves the clients that the kernel gives it unserved, so the others must not go on: dropped
/// while it is armed, by an error, a panic or a thread that could not be made, it stops them at once.
struct StopOnFailure<'env> {
    stop: &'env Stop,
    is_armed: bool,
}

impl StopOnFailure<'_> {
    fn run(
        mut self,
        pin: Option<usize>,
        serve: impl FnOnce() -> Result<(), ServeError>,
    ) -> Result<(), ServeError> {
        if let Some(cpu) = pin {
            // It only serves better so; where it may not, it serves wherever it is.
            let _ = cpus::pin_current_thread(&[cpu]);
        }
        let served = serve();
        self.is_armed = served.is_err();
        served
    }
}

impl Drop for StopOnFailure<'_> {
    fn drop(&mut self) {
        if self.is_armed {
            self.stop.request();
            self.stop.request();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use tftpbench_net::Poller;

    type Loop<'a> = Box<dyn FnOnce() -> Result<(), ServeError> + Send + 'a>;

    /// Ends by the stop alone; bounded, so that one that is not ended fails.
    fn until_stopped(stop: &Stop) -> Loop<'_> {
        Box::new(move || {
            let mut poller = Poller::new().unwrap();
            poller.add(stop, 0).unwrap();
            while stop.requests() < 2 {
                assert!(poller.wait(Some(10_000_000_000), 0).unwrap().ready > 0, "nothing ends this loop");
            }
            Ok(())
        })
    }

    fn failing<'a>() -> Loop<'a> {
        Box::new(|| Err(ServeError::Option { option: "--workers", reason: "fail" }))
    }

    #[test]
    fn an_error_of_one_loop_ends_all_and_is_returned() {
        let stop = Stop::new().unwrap();
        let error = run(vec![until_stopped(&stop), failing(), until_stopped(&stop)], &stop).unwrap_err();
        assert_eq!(error.to_string(), "--workers: fail");
    }

    #[test]
    fn a_panic_of_one_loop_ends_all_and_goes_on() {
        let stop = Stop::new().unwrap();
        let panicking: Loop<'_> = Box::new(|| panic!("on purpose"));
        let caught = catch_unwind(AssertUnwindSafe(|| run(vec![until_stopped(&stop), panicking], &stop)));
        assert_eq!(caught.unwrap_err().downcast_ref::<&str>(), Some(&"on purpose"));
    }

    #[test]
    fn loops_that_end_well_leave_the_stop_alone() {
        let stop = Stop::new().unwrap();
        let loops: Vec<Loop<'_>> = vec![Box::new(|| Ok(())), Box::new(|| Ok(()))];
        run(loops, &stop).unwrap();
        assert_eq!(stop.requests(), 0);
    }

    #[test]
    fn each_loop_has_a_cpu_of_its_own_where_there_are_enough() {
        let allowed = cpus::allowed().unwrap();
        let stop = Stop::new().unwrap();
        let (sender, seen) = std::sync::mpsc::channel();
        let loops = (0..2).map(|_| {
            let sender = sender.clone();
            Box::new(move || {
                sender.send(cpus::allowed().unwrap()).unwrap();
                Ok(())
            }) as Loop<'_>
        });
        run(loops.collect(), &stop).unwrap();
        let mut seen: Vec<_> = seen.try_iter().collect();
        seen.sort();
        let pinned = || vec![vec![allowed[0]], vec![allowed[1]]];
        assert_eq!(seen, if allowed.len() >= 2 { pinned() } else { vec![allowed.clone(); 2] });
    }
}
