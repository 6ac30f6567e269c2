//! Which files may be trusted: a secret that others can read is none, and a file that others can write says what they want.

use std::path::Path;

use crate::world::Access;

const ROOT: u32 = 0;
const WRITE_BY_OTHERS: u32 = 0o022;
const ANY_BY_OTHER: u32 = 0o007;
const ANY_BY_GROUP: u32 = 0o070;
const WRITE_BY_OTHER: u32 = 0o002;

/// What is wrong, and what would be right.
pub(super) type Wrong = (String, String);

/// Whether a file may hold a secret: it belongs to root or to `user`, who runs prismesh, as do the links that lead to it; only
/// its owner writes it; and only its owner reads it, or a group that root has chosen.
pub(super) fn secret(path: &Path, access: &Access, user: u32) -> Result<(), Wrong> {
    owners(access, user).map_err(|what| {
        let right =
            "let it belong to the user that runs prismesh, with mode 0600, or to root and that user's group, with mode 0640";
        (what, right.to_owned())
    })?;
    let Access { owner, mode, .. } = *access;
    if mode & (WRITE_BY_OTHERS | ANY_BY_OTHER) != 0 || (owner != ROOT && mode & ANY_BY_GROUP != 0) {
        return Err((format!("is open to others (mode {mode:04o})"), format!("chmod 600 {}", path.display())));
    }
    Ok(())
}

/// Whether a directory may hold this agent's state: not just anybody can put a file or a link there. Links of other users are not
/// followed even so, and what the files say is sealed or bounded; so a group may write there.
pub(super) fn state_directory(access: &Access, user: u32) -> Result<(), Wrong> {
    let what = match owners(access, user) {
        Err(what) => what,
        Ok(()) if access.mode & WRITE_BY_OTHER != 0 => format!("can be written by others (mode {:04o})", access.mode),
        Ok(()) => return Ok(()),
    };
    let right = "name a directory that belongs to the user that runs prismesh and that no other user can write; one that does not \
                 exist yet is made";
    Err((what, right.to_owned()))
}

fn owners(access: &Access, user: u32) -> Result<(), String> {
    let foreign = |owner: &&u32| **owner != ROOT && **owner != user;
    if let Some(owner) = access.link_owners.iter().find(foreign) {
        return Err(format!("is reached by a link that belongs to user {owner}"));
    }
    match Some(&access.owner).filter(foreign) {
        Some(owner) => Err(format!("belongs to user {owner}, which is neither root nor user {user}, which runs prismesh")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const USER: u32 = 990;
    const OTHER: u32 = 1000;

    fn access(owner: u32, mode: u32) -> Access {
        Access { owner, mode, link_owners: [].into() }
    }

    #[test]
    fn a_secret_is_its_owners_or_of_a_group_that_root_chose() {
        for (owner, mode) in [(USER, 0o600), (USER, 0o400), (ROOT, 0o600), (ROOT, 0o640), (ROOT, 0o440), (ROOT, 0o400)] {
            assert_eq!(secret(Path::new("/k"), &access(owner, mode), USER), Ok(()), "{owner} {mode:o}");
        }
        let refused = [
            (OTHER, 0o600),
            (OTHER, 0o640),
            (USER, 0o640),
            (USER, 0o620),
            (USER, 0o604),
            (ROOT, 0o660),
            (ROOT, 0o644),
            (ROOT, 0o642),
        ];
        for (owner, mode) in refused {
            assert!(secret(Path::new("/k"), &access(owner, mode), USER).is_err(), "{owner} {mode:o}");
        }
        assert!(secret(Path::new("/k"), &access(USER, 0o600), ROOT).is_err(), "to root a service's user is somebody else");
    }

    #[test]
    fn nobody_else_may_write_into_the_state_directory() {
        for (owner, mode) in [(USER, 0o700), (USER, 0o775), (ROOT, 0o755), (ROOT, 0o2775)] {
            assert_eq!(state_directory(&access(owner, mode), USER), Ok(()), "{owner} {mode:o}");
        }
        for (owner, mode) in [(USER, 0o777), (ROOT, 0o1777), (USER, 0o702), (OTHER, 0o700)] {
            assert!(state_directory(&access(owner, mode), USER).is_err(), "{owner} {mode:o}");
        }
    }

    #[test]
    fn a_link_counts_by_its_owner() {
        for (link, fine) in [(ROOT, true), (USER, true), (OTHER, false)] {
            let access = Access { link_owners: [ROOT, link].into(), ..access(ROOT, 0o440) };
            assert_eq!(
                (secret(Path::new("/k"), &access, USER).is_ok(), state_directory(&access, USER).is_ok()),
                (fine, fine),
                "{link}"
            );
        }
    }
}
