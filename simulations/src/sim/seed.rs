//! Where all randomness of a simulation comes from.
//!
//! `std`'s hash keys, `rand` and tokio's `select!` all draw from the kernel by way of the C library's `getrandom`. This binary brings
//! its own, which falls through to the kernel until a simulation has given the thread a seed; from then on that thread's draws
//! are a function of the seed. Other threads, and whoever never asks for a seed (the live demo: its keys must not be
//! predictable), get the kernel's.
#![expect(unsafe_code, reason = "a C function is replaced, which no safe interface offers")]

use std::cell::Cell;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

thread_local! {
    static STREAM: Cell<Option<Stream>> = const { Cell::new(None) };
}

#[derive(Clone, Copy)]
struct Stream {
    state: u64,
    draws: u64,
}

impl Stream {
    /// `splitmix64` (Steele, Lea and Flood, 2014): well mixed and small, which is all that is asked for here.
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

/// From now on this thread's randomness follows from `seed`.
pub(super) fn plant(seed: u64) {
    STREAM.set(Some(Stream { state: seed, draws: 0 }));
}

/// This thread is a simulation's.
pub(super) fn planted() -> bool {
    STREAM.get().is_some()
}

/// How often this thread has drawn since it was given a seed.
fn draws() -> u64 {
    STREAM.get().map_or(0, |stream| stream.draws)
}

/// Makes sure that those who matter draw from here: each is tried in a thread where it has not drawn yet.
///
/// # Panics
/// One of them does not. Then no run could be repeated, and none may begin.
pub(super) fn assert_reached() {
    let reached = |what: &str, draw: fn()| {
        let drawn = std::thread::spawn(move || {
            plant(1);
            draw();
            draws()
        });
        assert!(drawn.join().is_ok_and(|draws| draws > 0), "{what} does not draw from the simulation's seed");
    };
    reached("std", || {
        RandomState::new().hash_one(0);
    });
    reached("rand", || {
        let _: u64 = rand::random();
    });
    reached("tokio", || {
        let _ = tokio::runtime::Builder::new_current_thread().build();
    });
}

/// The C library's function of this name, for the whole process.
///
/// # Safety
/// As the C library's: `buffer` has room for `length` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn getrandom(buffer: *mut u8, length: usize, flags: u32) -> isize {
    let Some(mut stream) = STREAM.try_with(Cell::get).ok().flatten() else {
        // SAFETY: the caller's promise is passed on to the kernel.
        let drawn = unsafe { libc::syscall(libc::SYS_getrandom, buffer, length, flags) };
        return isize::try_from(drawn).unwrap_or(-1);
    };
    if length > 0 {
        // SAFETY: the caller promises room for `length` bytes.
        let bytes = unsafe {
            std::ptr::write_bytes(buffer, 0, length);
            std::slice::from_raw_parts_mut(buffer, length)
        };
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&stream.next().to_le_bytes()[..chunk.len()]);
        }
    }
    stream.draws += 1;
    STREAM.set(Some(stream));
    length.cast_signed()
}
