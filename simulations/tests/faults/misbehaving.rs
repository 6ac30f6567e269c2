//! Apiservers that answer, but not as they should: what every node makes of each, while its clients notice nothing.

use anyhow::Result;
use simulations::lab::apiserver::{Manner, Options};
use simulations::lab::ca::Ca;
use simulations::lab::cluster::Apiserver;

use crate::bounds::{Claims, granted, promise};
use crate::scene::{Scene, program, secs};

/// The apiserver that misbehaves: the last of three.
const ODD: usize = 2;

/// What it does, in words; how; and the verdict that follows.
type Oddity = (&'static str, fn(&mut Options, &Pairs), &'static str);

/// Certificates that it may show.
struct Pairs {
    expired: simulations::lab::ca::Pair,
    of_another_ca: simulations::lab::ca::Pair,
}

const ODDITIES: [Oddity; 12] = [
    ("it closes at accept", |options, _| options.manner = Manner::Close, "down"),
    ("it answers with a TLS alert", |options, _| options.manner = Manner::Alert, "down"),
    ("it speaks plain HTTP", |options, _| options.manner = Manner::Plain, "down"),
    ("it speaks something else", |options, _| options.manner = Manner::Garbage, "down"),
    (
        "its certificate is of another CA",
        |options, pairs| (options.cert, options.key) = (pairs.of_another_ca.cert.clone(), pairs.of_another_ca.key.clone()),
        "down",
    ),
    (
        "its certificate has expired",
        |options, pairs| (options.cert, options.key) = (pairs.expired.cert.clone(), pairs.expired.key.clone()),
        "draining",
    ),
    ("readyz takes 3 s", |options, _| options.readyz_delay_ms = 3000, "draining"),
    ("readyz says 404", |options, _| options.readyz = 404, "down"),
    ("readyz says 500", |options, _| options.readyz = 500, "draining"),
    ("readyz says 429", |options, _| options.readyz = 429, "draining"),
    ("readyz says 401", |options, _| options.readyz = 401, "ready"),
    ("readyz says 403", |options, _| options.readyz = 403, "ready"),
];

#[test]
fn misbehaving_apiserver_gets_the_verdict_it_deserves() {
    promise("an apiserver misbehaves", async |claims| {
        let mut scene = Scene::calm().await?;
        scene.breaks();
        let name = scene.cluster.apiservers[ODD].name.clone();
        let good = scene.cluster.apiserver_options(&name, 13)?;
        let addrs = [good.listen.ip()];
        let pairs = Pairs {
            expired: scene.cluster.ca.expired_server("expired", &addrs)?,
            of_another_ca: Ca::create(scene.cluster.dir(), "other-ca")?.server("odd", &addrs)?,
        };
        for (told, make, verdict) in ODDITIES {
            let mut options = good.clone();
            make(&mut options, &pairs);
            misbehaves(&mut scene, &options, told, verdict, claims).await?;
        }
        scene.settle().await;
        scene.none_failed(claims);
        scene.streams_flow(claims);
        Ok(())
    });
}

/// It is gone, everyone knows, and it comes back odd.
async fn misbehaves(scene: &mut Scene, options: &Options, told: &str, verdict: &str, claims: &mut Claims) -> Result<()> {
    scene.apiserver(ODD)?.kill();
    scene.mark();
    scene.wait(granted(secs(5)), async |scene| scene.off_everywhere(ODD).await).await;
    scene.cluster.apiservers[ODD] = Apiserver::lab(&program(), options);
    scene.cluster.start_apiserver(ODD)?;
    scene.cluster.apiservers[ODD].process()?.ready(secs(10)).await?;
    scene.mark();
    // A verdict of the one that was there before may still stand, and be right by chance: it must last.
    tokio::time::sleep(secs(2)).await;
    let held = scene.wait(granted(secs(8)), async |scene| scene.all_hold(ODD, verdict).await).await;
    claims.add(held.is_some(), &format!("{told}: {verdict} everywhere"), format!("{held:.1?}, {:?}", scene.verdicts(ODD).await));
    Ok(())
}
