//! What an error of a datagram call means for the socket.

use std::io;

/// What to do about a failed send or receive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ErrorClass {
    /// Nothing to receive, or no room to send.
    WouldBlock,
    /// A signal arrived first.
    Interrupted,
    /// The way to one peer is at fault; the socket is sound.
    Path,
    /// The call or the socket is at fault.
    Socket,
}

impl ErrorClass {
    /// Sorts the error of a receive call: ip(7) passes on ICMP errors that earlier datagrams caused.
    pub(crate) fn receiving(error: &io::Error) -> ErrorClass {
        match error.raw_os_error() {
            // EWOULDBLOCK is EAGAIN on Linux, errno(3).
            Some(libc::EAGAIN) => ErrorClass::WouldBlock,
            Some(libc::EINTR) => ErrorClass::Interrupted,
            Some(
                libc::ECONNREFUSED
                | libc::EHOSTUNREACH
                | libc::EHOSTDOWN
                | libc::ENETUNREACH
                | libc::ENETDOWN
                | libc::ENONET
                | libc::ENOPROTOOPT
                | libc::EPROTO
                | libc::EOPNOTSUPP
                | libc::EACCES
                | libc::EPERM
                | libc::EMSGSIZE,
            ) => ErrorClass::Path,
            _ => ErrorClass::Socket,
        }
    }

    /// Sorts the error of a send call, udp(7), sendto(2). Peers choose their address, so an address
    /// that can't be sent to (EINVAL: port 0) is no fault of ours.
    pub(crate) fn sending(error: &io::Error) -> ErrorClass {
        match error.raw_os_error() {
            Some(
                libc::EINVAL
                | libc::EADDRNOTAVAIL
                | libc::EAFNOSUPPORT
                | libc::ENODEV
                | libc::ENOBUFS
                | libc::ENOMEM,
            ) => ErrorClass::Path,
            _ => ErrorClass::receiving(error),
        }
    }
}

/// Whether a send may have failed for being cut into segments (UDP_SEGMENT, udp(7)) and might succeed without: a
/// segment is longer than the path takes (EINVAL, EMSGSIZE), the device can't checksum it (EIO), or a sandbox does not
/// know how.
pub(crate) fn may_refuse_segments(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EINVAL | libc::EMSGSIZE | libc::EIO | libc::ENOPROTOOPT | libc::EOPNOTSUPP)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_faults_of_the_socket_itself_are_faults() {
        let sort = |errno| ErrorClass::receiving(&io::Error::from_raw_os_error(errno));
        assert_eq!(sort(libc::EAGAIN), ErrorClass::WouldBlock);
        assert_eq!(sort(libc::ECONNREFUSED), ErrorClass::Path);
        assert_eq!(sort(libc::EBADF), ErrorClass::Socket);
        assert_eq!(sort(libc::EINVAL), ErrorClass::Socket);
        let unreachable = io::Error::from_raw_os_error(libc::EINVAL);
        assert_eq!(ErrorClass::sending(&unreachable), ErrorClass::Path);
    }
}
