//! Whether a pair differs: what the direct client survived, the client of prismesh must have survived as well.

use std::fmt;
use std::time::Duration;

use super::exempt::{Exemption, Harm, death, exemption};
use super::pair::{Fared, Side};

/// Of two clients that both fail, the one of prismesh may be earlier by so much: its own kernel hears it at another moment.
const AT_ONCE: Duration = Duration::from_secs(2);
/// A direct client that was done so shortly before its apiserver ended says nothing about one that was a little slower ...
const A_LITTLE: Duration = Duration::from_secs(1);
/// ... and this share of its own time is a little as well.
const A_LITTLE_OF: u32 = 4;

/// What a pair shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Both exchanges ended as without a fault.
    BothSurvived,
    /// Neither did.
    BothFailed,
    /// Only the one through prismesh did.
    DirectFailedAlone,
    /// Only the direct one did, and the other was reset as clients want.
    Exempt(Exemption),
    /// Only the direct one did, or did for longer.
    Difference(String),
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::BothSurvived => f.write_str("both survived"),
            Verdict::BothFailed => f.write_str("both failed"),
            Verdict::DirectFailedAlone => f.write_str("direct failed alone"),
            Verdict::Exempt(why) => write!(f, "exempt ({why:?})"),
            Verdict::Difference(what) => write!(f, "DIFFERENCE: {what}"),
        }
    }
}

/// Judges one.
pub(super) fn judge(fared: &Fared, harms: &[Harm]) -> Verdict {
    let verdicts: Vec<Verdict> =
        fared.direct.iter().map(|(apiserver, direct)| compare(fared, *apiserver, direct, harms)).collect();
    // Where prismesh chose none, whichever it could have chosen counts.
    let worst = |verdict: &&Verdict| matches!(verdict, Verdict::Difference(_));
    let exempt = |verdict: &&Verdict| matches!(verdict, Verdict::Exempt(_));
    let verdict = verdicts.iter().find(worst).or_else(|| verdicts.iter().find(exempt)).or_else(|| verdicts.first());
    verdict.cloned().unwrap_or_else(|| Verdict::Difference("no direct client to compare with".to_owned()))
}

fn compare(fared: &Fared, apiserver: usize, direct: &Side, harms: &[Harm]) -> Verdict {
    let through = &fared.through;
    let Err(why) = &through.came else {
        return if direct.came.is_ok() { Verdict::BothSurvived } else { Verdict::DirectFailedAlone };
    };
    let survived_it = direct.came.is_ok() || direct.at > through.at + AT_ONCE;
    if !survived_it {
        return Verdict::BothFailed;
    }
    let difference = || {
        let fate = match &direct.came {
            Ok(came) => format!("the direct client went on to the end ({came}) at {:.2} s", direct.at.as_secs_f64()),
            Err(why) => format!("the direct client went on until {:.2} s ({why})", direct.at.as_secs_f64()),
        };
        Verdict::Difference(format!("through prismesh it failed at {:.2} s ({why}); {fate}", through.at.as_secs_f64()))
    };
    match exemption(harms, apiserver, fared.begun, through.at) {
        None => difference(),
        Some(Exemption::Dead) if direct.came.is_err() => Verdict::BothFailed,
        Some(Exemption::Dead) => {
            let dead = death(harms, apiserver, fared.begun).unwrap_or_default();
            let took = direct.at.saturating_sub(fared.begun);
            let late = direct.at + A_LITTLE.max(took / A_LITTLE_OF) >= dead;
            if late { Verdict::Exempt(Exemption::Dead) } else { difference() }
        }
        Some(other) => Verdict::Exempt(other),
    }
}
