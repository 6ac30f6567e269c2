//! What the kernel knows of a connection's peer: `TCP_INFO`, see tcp(7).
//!
//! No library on crates.io reads it without building C headers, so this is the one place in the agent with an `unsafe` block: a call
//! of getsockopt(2) into a structure of plain numbers, which the kernel fills up to the length that it returns. Older kernels fill
//! less; what is missing stays zero.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use crate::engine::liveness::{PeerState, Unanswered};

/// The state of the peer of a connected socket.
///
/// # Errors
/// The kernel's: it is no TCP socket.
pub(super) fn peer_state(socket: impl AsFd) -> io::Result<PeerState> {
    let (info, filled) = tcp_info(socket)?;
    // Linux 5.4 and later tell the peer's window.
    let tells_window = filled >= std::mem::offset_of!(libc::tcp_info, tcpi_snd_wnd) + size_of::<u32>();
    let window_closed = !tells_window || info.tcpi_snd_wnd == 0 || (info.tcpi_unacked == 0 && info.tcpi_notsent_bytes > 0);
    let unanswered = match (info.tcpi_unacked, info.tcpi_probes) {
        (0, 0) => Unanswered::Nothing,
        (0, probes) if window_closed => Unanswered::WindowProbes(probes.into()),
        (0, _) => Unanswered::Keepalives,
        (_, 0) if info.tcpi_retransmits == 0 => Unanswered::FreshData,
        _ => Unanswered::Data,
    };
    Ok(PeerState {
        unanswered,
        // Data acknowledges as well; on a connection that only receives it is all that comes.
        since_acknowledged: Duration::from_millis(info.tcpi_last_ack_recv.min(info.tcpi_last_data_recv).into()),
        acknowledged_bytes: info.tcpi_bytes_acked,
        has_sent: info.tcpi_data_segs_in > 0,
        round_trip: Duration::from_micros(info.tcpi_rtt.into()),
    })
}

/// The structure, and how many of its bytes the kernel filled.
fn tcp_info(socket: impl AsFd) -> io::Result<(libc::tcp_info, usize)> {
    let fd = socket.as_fd().as_raw_fd();
    #[expect(
        unsafe_code,
        reason = "a structure of numbers is valid whatever its bytes; the kernel writes at most `length` of them"
    )]
    unsafe {
        let mut info: libc::tcp_info = std::mem::zeroed();
        let mut length = libc::socklen_t::try_from(size_of::<libc::tcp_info>()).map_err(io::Error::other)?;
        let got = libc::getsockopt(
            fd,
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            std::ptr::from_mut(&mut info).cast(),
            std::ptr::from_mut(&mut length),
        );
        if got == 0 { Ok((info, usize::try_from(length).map_err(io::Error::other)?)) } else { Err(io::Error::last_os_error()) }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn a_peer_that_does_not_read_shows_a_closed_window_and_acknowledges() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut here = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut there, _) = listener.accept().unwrap();
        assert_eq!(peer_state(&here).unwrap().unanswered, Unanswered::Nothing);
        assert!(!peer_state(&here).unwrap().has_sent);
        there.write_all(b"something").unwrap();
        here.read_exact(&mut [0; 9]).unwrap();
        assert!(peer_state(&here).unwrap().has_sent);
        here.set_nonblocking(true).unwrap();
        while here.write(&[0; 65_536]).is_ok() {}
        let state = peer_state(&here).unwrap();
        assert!(!matches!(state.unanswered, Unanswered::Data | Unanswered::Keepalives), "{state:?}");
    }
}
