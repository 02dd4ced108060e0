//! Which CPUs a thread may run on. Only ever changes the calling thread.

use std::io;
use std::mem::size_of;

/// CPUs a mask has room for: the most that a kernel can be built for (NR_CPUS_RANGE_END on x86) is 8192.
const CPUS_MAX: usize = 8192;
const BITS: usize = libc::c_ulong::BITS as usize;

/// Binds the calling thread, and threads it starts later, to `cpus`.
///
/// Fails with `InvalidInput` for an empty list or a number no kernel knows, and with the kernel's
/// error where none of them is online or allowed.
pub fn pin_current_thread(cpus: &[usize]) -> io::Result<()> {
    let mut mask = [0; CPUS_MAX / BITS];
    for &cpu in cpus {
        let word: &mut libc::c_ulong = mask.get_mut(cpu / BITS).ok_or(io::ErrorKind::InvalidInput)?;
        *word |= 1 << (cpu % BITS);
    }
    // sched_setaffinity(2): 0 is the calling thread; bits of CPUs that do not exist are ignored.
    // SAFETY: the mask is as long as stated and only read.
    let status =
        unsafe { libc::sched_setaffinity(0, size_of_val(&mask), mask.as_ptr().cast::<libc::cpu_set_t>()) };
    if status == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The CPUs the calling thread may run on, ascending.
pub fn allowed() -> io::Result<Vec<usize>> {
    let mut mask: [libc::c_ulong; CPUS_MAX / BITS] = [0; CPUS_MAX / BITS];
    let bytes = CPUS_MAX / BITS * size_of::<libc::c_ulong>();
    // SAFETY: the mask is as long as stated, and the call writes at most that many bytes.
    let status = unsafe { libc::sched_getaffinity(0, bytes, mask.as_mut_ptr().cast::<libc::cpu_set_t>()) };
    if status != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok((0..CPUS_MAX).filter(|cpu| mask[cpu / BITS] >> (cpu % BITS) & 1 == 1).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pinned_thread_may_run_on_that_cpu_only() {
        let last = *allowed().unwrap().last().unwrap();
        let seen = std::thread::spawn(move || {
            pin_current_thread(&[last]).unwrap();
            allowed().unwrap()
        });
        assert_eq!(seen.join().unwrap(), [last]);
    }

    #[test]
    fn no_cpu_and_absurd_cpus_are_refused() {
        assert!(pin_current_thread(&[]).is_err());
        let error = pin_current_thread(&[usize::MAX]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }
}
