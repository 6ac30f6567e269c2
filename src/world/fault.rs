//! Whose fault it is that a connection could not be made or ended: the one place that decides it, for dials, probes and
//! simulations alike.
//!
//! The line that matters is between "the other side" and "this node": drawn wrongly, a node without free descriptors would call
//! every apiserver down, and one whose firewall forbids a single apiserver would take it for untried for ever. Some errors do not
//! tell the two apart: without a route, or forbidden by a firewall's rule, one destination may be out of reach, or all of
//! them. Those are [`Fault::Unreachable`], and the engine, which knows how the others do, decides.

use std::io;

use rustix::io::Errno;

/// What an error of a connection says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The other side refused, reset or closed.
    Refused,
    /// No answer within the kernel's own time.
    TimedOut,
    /// The kernel found no way to this destination, or a rule forbids it; the text names the errno. Whether that is the path's
    /// fault or this node's shows only beside other destinations.
    Unreachable(String),
    /// This node lacks what every dial needs: descriptors, memory. The text names the errno.
    Local(String),
}

impl Fault {
    /// Reads an error of a dial, or of a connection that was made.
    pub fn of(error: &io::Error) -> Fault {
        match Errno::from_io_error(error) {
            Some(errno) => of_errno(errno, error),
            None => of_kind(error),
        }
    }
}

fn of_errno(errno: Errno, error: &io::Error) -> Fault {
    match errno {
        Errno::CONNREFUSED | Errno::CONNRESET | Errno::CONNABORTED | Errno::NOTCONN | Errno::PIPE => Fault::Refused,
        Errno::TIMEDOUT => Fault::TimedOut,
        Errno::MFILE | Errno::NFILE | Errno::ADDRINUSE | Errno::NOBUFS | Errno::NOMEM | Errno::AGAIN => {
            Fault::Local(described(errno, error))
        }
        // EPERM and EACCES (a firewall, a prohibiting route), ENETUNREACH, EHOSTUNREACH, EINVAL (a blackhole route), ENETDOWN,
        // EAFNOSUPPORT, EADDRNOTAVAIL (no address of this family, or no port left towards this destination), and what else the kernel may
        // say of one destination.
        _ => Fault::Unreachable(described(errno, error)),
    }
}

/// Errors without a number: those of TLS and HTTP libraries, and of simulations.
fn of_kind(error: &io::Error) -> Fault {
    use io::ErrorKind as Kind;
    match error.kind() {
        Kind::ConnectionRefused
        | Kind::ConnectionReset
        | Kind::ConnectionAborted
        | Kind::BrokenPipe
        | Kind::NotConnected
        | Kind::UnexpectedEof => Fault::Refused,
        Kind::TimedOut => Fault::TimedOut,
        Kind::HostUnreachable
        | Kind::NetworkUnreachable
        | Kind::NetworkDown
        | Kind::PermissionDenied
        | Kind::AddrNotAvailable => Fault::Unreachable(error.to_string()),
        _ => Fault::Local(error.to_string()),
    }
}

/// `EPERM: Operation not permitted (os error 1)`.
fn described(errno: Errno, error: &io::Error) -> String {
    const NAMES: [(Errno, &str); 14] = [
        (Errno::PERM, "EPERM"),
        (Errno::ACCESS, "EACCES"),
        (Errno::NETUNREACH, "ENETUNREACH"),
        (Errno::HOSTUNREACH, "EHOSTUNREACH"),
        (Errno::HOSTDOWN, "EHOSTDOWN"),
        (Errno::NETDOWN, "ENETDOWN"),
        (Errno::INVAL, "EINVAL"),
        (Errno::AFNOSUPPORT, "EAFNOSUPPORT"),
        (Errno::MFILE, "EMFILE"),
        (Errno::NFILE, "ENFILE"),
        (Errno::ADDRNOTAVAIL, "EADDRNOTAVAIL"),
        (Errno::ADDRINUSE, "EADDRINUSE"),
        (Errno::NOBUFS, "ENOBUFS"),
        (Errno::NOMEM, "ENOMEM"),
    ];
    match NAMES.iter().find(|(named, _)| *named == errno) {
        Some((_, name)) => format!("{name}: {error}"),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(errno: Errno) -> Fault {
        Fault::of(&io::Error::from(errno))
    }

    #[test]
    fn what_the_other_side_did_is_a_refusal_or_a_time_out() {
        for errno in [Errno::CONNREFUSED, Errno::CONNRESET, Errno::CONNABORTED, Errno::NOTCONN, Errno::PIPE] {
            assert_eq!(of(errno), Fault::Refused, "{errno}");
        }
        assert_eq!(of(Errno::TIMEDOUT), Fault::TimedOut);
    }

    #[test]
    fn what_every_dial_needs_is_this_nodes_own_lack() {
        for errno in [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM] {
            assert!(matches!(of(errno), Fault::Local(_)), "{errno}");
        }
    }

    #[test]
    fn what_may_be_said_of_one_destination_alone_is_unreachable_and_its_errno_is_named() {
        let named = [
            (Errno::PERM, "EPERM: "),
            (Errno::ACCESS, "EACCES: "),
            (Errno::NETUNREACH, "ENETUNREACH: "),
            (Errno::HOSTUNREACH, "EHOSTUNREACH: "),
            (Errno::INVAL, "EINVAL: "),
            (Errno::ADDRNOTAVAIL, "EADDRNOTAVAIL: "),
        ];
        for (errno, name) in named {
            let Fault::Unreachable(text) = of(errno) else { panic!("{errno}: {:?}", of(errno)) };
            assert!(text.starts_with(name), "{text}");
        }
    }

    #[test]
    fn errors_without_a_number_are_told_apart_by_their_kind() {
        assert_eq!(Fault::of(&io::ErrorKind::ConnectionRefused.into()), Fault::Refused);
        assert!(matches!(Fault::of(&io::ErrorKind::NetworkUnreachable.into()), Fault::Unreachable(_)));
        assert!(matches!(Fault::of(&io::ErrorKind::AddrNotAvailable.into()), Fault::Unreachable(_)));
        assert!(matches!(Fault::of(&io::ErrorKind::OutOfMemory.into()), Fault::Local(_)));
        assert!(matches!(Fault::of(&io::Error::other("what?")), Fault::Local(_)));
    }
}
