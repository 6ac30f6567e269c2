//! Draws for scenarios and for the modelled world: each purpose has a stream of its own, named, so that one more draw
//! elsewhere changes nothing here.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use sha2::{Digest, Sha256};

/// What a run is drawn from.
#[derive(Clone, Copy, Debug)]
pub struct Draw {
    seed: u64,
}

impl Draw {
    /// All draws of one seed.
    pub fn of(seed: u64) -> Draw {
        Draw { seed }
    }

    /// All draws of one seed for one story: otherwise a seed would give all stories the same cluster, the same victim and the
    /// same moment, and a sweep would see far less than it seems to.
    pub fn of_story(seed: u64, story: &str) -> Draw {
        Draw { seed: Draw::of(seed).stream(story).random() }
    }

    /// The seed.
    pub fn seed(self) -> u64 {
        self.seed
    }

    /// The stream of this name.
    pub fn stream(self, name: &str) -> StdRng {
        let mut hash = Sha256::new();
        hash.update(self.seed.to_be_bytes());
        hash.update(name.as_bytes());
        StdRng::from_seed(hash.finalize().into())
    }

    /// A number of `from..=to`.
    pub fn number(self, name: &str, from: u64, to: u64) -> u64 {
        self.stream(name).random_range(from..=to)
    }

    /// One of these.
    pub fn one_of<T: Clone>(self, name: &str, of: &[T]) -> T {
        let place = self.stream(name).random_range(0..of.len());
        of[place].clone()
    }

    /// True this often.
    pub fn chance(self, name: &str, share: f64) -> bool {
        self.stream(name).random_bool(share)
    }

    /// `count` different numbers below `below`, in the order drawn; fewer if there are fewer.
    pub fn several(self, name: &str, count: usize, below: usize) -> Vec<usize> {
        let mut stream = self.stream(name);
        let mut left: Vec<usize> = (0..below).collect();
        (0..count.min(below)).map(|_| left.swap_remove(stream.random_range(0..left.len()))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_depends_on_its_seed_and_its_name_and_on_nothing_else() {
        let draw = Draw::of(7);
        assert_eq!(draw.number("one", 0, u64::MAX), Draw::of(7).number("one", 0, u64::MAX));
        assert_ne!(draw.number("one", 0, u64::MAX), draw.number("two", 0, u64::MAX));
        assert_ne!(draw.number("one", 0, u64::MAX), Draw::of(8).number("one", 0, u64::MAX));
    }

    #[test]
    fn two_stories_of_one_seed_share_no_draw() {
        let when = |story| Draw::of_story(7, story).number("when", 0, u64::MAX);
        assert_eq!(when("calm"), when("calm"));
        assert_ne!(when("calm"), when("busy"));
        assert_ne!(when("calm"), Draw::of(7).number("when", 0, u64::MAX));
    }

    #[test]
    fn several_are_different_from_one_another() {
        let mut drawn = Draw::of(1).several("who", 9, 5);
        drawn.sort_unstable();
        assert_eq!(drawn, [0, 1, 2, 3, 4]);
    }
}
