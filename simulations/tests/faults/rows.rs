//! The table of promises, a test a row.

use simulations::lab::netns::{Place, Silence, enter};

use crate::bounds::{Claims, either, granted, promise, say, turn};
use crate::scene::{NOT_LATE, Scene, millis, secs};

/// "At once", for what needs no more than the kernel's word.
const AT_ONCE: std::time::Duration = millis(500);
/// How long a new connection may look for another upstream when the first is silent.
const SILENT_LATE: std::time::Duration = millis(300);

/// A share grows for so long.
const RAMP: std::time::Duration = prismesh::engine::policy::RAMP;

/// For tests that drop packets: whether to go on here.
fn in_a_network_of_its_own(test: &str) -> bool {
    let _turn = turn();
    match enter(test) {
        Err(error) => panic!("{error:#}"),
        Ok(Place::Inside) => true,
        Ok(Place::Passed) => false,
        Ok(Place::Forbidden(why)) => {
            say(&format!("SKIPPED {test}: {why}"));
            false
        }
    }
}

#[test]
fn external_balancer_refuses_and_nobody_notices() {
    promise("the external balancer refuses", async |claims| {
        let mut scene = Scene::calm().await?;
        scene.breaks();
        scene.cluster.balancer = None;
        scene.mark();
        scene.until(secs(4)).await;
        nobody_noticed(&mut scene, claims).await;
        Ok(())
    });
}

#[test]
fn external_balancer_falls_silent_and_nobody_notices() {
    if !in_a_network_of_its_own("rows::external_balancer_falls_silent_and_nobody_notices") {
        return;
    }
    promise("the external balancer falls silent", async |claims| {
        let mut scene = Scene::calm().await?;
        scene.breaks();
        let _silence = Silence::of(scene.cluster.balancer_addr().ip())?;
        scene.until(secs(4)).await;
        nobody_noticed(&mut scene, claims).await;
        Ok(())
    });
}

async fn nobody_noticed(scene: &mut Scene, claims: &mut Claims) {
    scene.settle().await;
    scene.none_failed(claims);
    scene.none_later_than(NOT_LATE, millis(0), claims);
    scene.others_untouched(None, claims);
    scene.streams_flow(claims);
}

#[test]
fn apiserver_killed_costs_no_connection() {
    promise("an apiserver is killed", async |claims| {
        let mut scene = Scene::calm().await?;
        scene.breaks();
        scene.apiserver(0)?.kill();
        scene.mark();
        scene.until(secs(4)).await;
        scene.settle().await;
        scene.none_failed(claims);
        scene.none_later_than(NOT_LATE, millis(0), claims);
        scene.streams_ended("api-1", millis(0), AT_ONCE, claims);
        scene.others_untouched(Some("api-1"), claims);
        scene.streams_flow(claims);
        Ok(())
    });
}

#[test]
fn apiserver_whose_address_falls_silent_costs_no_connection() {
    if !in_a_network_of_its_own("rows::apiserver_whose_address_falls_silent_costs_no_connection") {
        return;
    }
    promise("an apiserver's address drops everything", async |claims| {
        let mut scene = Scene::calm().await?;
        scene.breaks();
        let addr = scene.cluster.apiservers[0].addr;
        let _silence = Silence::of(addr.ip())?;
        scene.wait(granted(secs(6)), async |scene| scene.all_ended("api-1")).await;
        scene.until(either(secs(8), secs(5))).await;
        scene.settle().await;
        scene.none_failed(claims);
        scene.none_later_than(SILENT_LATE, millis(0), claims);
        scene.none_later_than(NOT_LATE, secs(2), claims);
        scene.streams_ended("api-1", millis(0), secs(6), claims);
        scene.others_untouched(Some("api-1"), claims);
        scene.streams_flow(claims);
        Ok(())
    });
}

#[test]
fn apiserver_that_hangs_costs_no_connection() {
    promise("an apiserver hangs", async |claims| {
        let mut scene = Scene::calm().await?;
        scene.breaks();
        scene.apiserver(0)?.stop()?;
        scene.wait(granted(secs(10)), async |scene| scene.all_ended("api-1")).await;
        scene.until(either(secs(11), secs(6))).await;
        scene.settle().await;
        scene.none_failed(claims);
        scene.none_later_than(secs(2), millis(0), claims);
        scene.none_later_than(NOT_LATE, secs(5), claims);
        scene.streams_ended("api-1", millis(0), secs(10), claims);
        scene.others_untouched(Some("api-1"), claims);
        scene.streams_flow(claims);
        Ok(())
    });
}

#[test]
fn apiserver_that_drains_is_left_before_it_closes() {
    promise("an apiserver drains", async |claims| {
        let mut scene = Scene::calm().await?;
        scene.breaks();
        scene.apiserver(0)?.terminate()?;
        let off = scene.wait(granted(millis(1500)), async |scene| scene.off_everywhere(0).await).await;
        claims.add(off.is_some(), "off it everywhere within 1.5 s", format!("{off:.2?}"));
        scene.wait(secs(7), async |scene| scene.all_ended("api-1")).await;
        scene.until(secs(7)).await;
        scene.settle().await;
        let late = scene.requests(granted(millis(1500))).iter().filter(|request| request.server() == Some("api-1")).count();
        claims.add(late == 0, "nothing new goes to it by then", late);
        scene.none_failed(claims);
        // It closes them 5 s after it was asked to stop; nothing else may.
        scene.streams_ended("api-1", millis(4900), secs(6), claims);
        scene.others_untouched(Some("api-1"), claims);
        scene.streams_flow(claims);
        Ok(())
    });
}

#[test]
fn control_plane_host_that_is_gone_costs_no_connection() {
    if !in_a_network_of_its_own("rows::control_plane_host_that_is_gone_costs_no_connection") {
        return;
    }
    promise("a whole control-plane host is gone", async |claims| {
        let mut scene = Scene::calm().await?;
        let lost = lose_a_host_with_streams(&mut scene)?;
        scene.wait(granted(secs(6)), async |scene| scene.all_ended(&lost.server)).await;
        scene.until(either(secs(8), secs(5))).await;
        scene.settle().await;
        scene.none_failed(claims);
        scene.none_later_than(SILENT_LATE, millis(0), claims);
        scene.none_later_than(NOT_LATE, secs(2), claims);
        if lost.had_streams {
            scene.streams_ended(&lost.server, millis(0), secs(6), claims);
        }
        scene.others_untouched(Some(&lost.server), claims);
        scene.streams_flow(claims);
        Ok(())
    });
}

/// A host that is gone, until this is dropped.
struct Lost {
    server: String,
    had_streams: bool,
    _silences: [Silence; 2],
}

/// Takes away the host whose apiserver carries the first worker's stream, so that a stream is there to be reset.
fn lose_a_host_with_streams(scene: &mut Scene) -> anyhow::Result<Lost> {
    let worker = scene.cluster.apiservers.len();
    let carried = scene.server_of(worker);
    let found = scene.cluster.apiservers.iter().position(|apiserver| Some(&apiserver.name) == carried.as_ref());
    let host = found.unwrap_or_default();
    let (server, apiserver) = (scene.cluster.apiservers[host].name.clone(), scene.cluster.apiservers[host].addr);
    let agent = scene.cluster.nodes[host].agent.take();
    let ip = scene.cluster.nodes[host].ip;
    scene.without(host);
    scene.breaks();
    let silences = [Silence::of(apiserver.ip())?, Silence::of(ip)?];
    // Its end is not heard either.
    drop(agent);
    Ok(Lost { server, had_streams: found.is_some(), _silences: silences })
}

#[test]
fn clients_are_held_while_all_apiservers_are_gone() {
    promise("all apiservers are gone for 5 s", async |claims| {
        let mut scene = Scene::calm().await?;
        scene.breaks();
        for index in 0..3 {
            scene.apiserver(index)?.kill();
        }
        scene.mark();
        scene.until(secs(5)).await;
        for index in 0..3 {
            scene.cluster.start_apiserver(index)?;
        }
        scene.wait(secs(20), async |scene| scene.all_flow()).await;
        scene.until(secs(9)).await;
        scene.settle().await;
        let held = scene.requests(millis(0)).into_iter().filter(|request| request.took() > secs(1)).count();
        claims.add(held > 0, "clients were held", held);
        scene.none_failed(claims);
        scene.streams_flow(claims);
        Ok(())
    });
}

#[test]
fn apiserver_that_pauses_for_600_ms_loses_no_stream() {
    promise("an apiserver pauses for 600 ms", async |claims| {
        let mut scene = Scene::calm().await?;
        scene.breaks();
        scene.apiserver(0)?.stop()?;
        scene.until(millis(600)).await;
        scene.apiserver(0)?.go_on()?;
        scene.until(secs(6)).await;
        scene.settle().await;
        scene.none_failed(claims);
        scene.others_untouched(None, claims);
        scene.streams_flow(claims);
        Ok(())
    });
}

#[test]
fn apiserver_that_comes_back_is_used_again_and_not_flooded() {
    promise("an apiserver comes back", async |claims| {
        let mut scene = Scene::calm().await?;
        // Shares grow while an endpoint is new; those of the other two must have grown up.
        tokio::time::sleep(RAMP).await;
        scene.apiserver(0)?.kill();
        scene.breaks();
        scene.wait(granted(secs(5)), async |scene| scene.off_everywhere(0).await).await;
        tokio::time::sleep(secs(2)).await;
        scene.cluster.start_apiserver(0)?;
        scene.breaks();
        let used = scene.wait(granted(secs(5)), async |scene| scene.used_everywhere(0).await).await;
        claims.add(used.is_some(), "used again within 5 s", format!("{used:.2?}"));
        scene.until(secs(10)).await;
        scene.settle().await;
        let its =
            |requests: &[simulations::lab::tally::Request]| requests.iter().filter(|it| it.server() == Some("api-1")).count();
        let workers: Vec<_> = (3..5).flat_map(|worker| scene.requests_of(worker, millis(0))).collect();
        let (share, fair) = (its(&workers), workers.len().div_ceil(3));
        claims.add(
            share <= fair,
            "at most its fair share of the workers' new connections",
            format!("{share} of {}", workers.len()),
        );
        let local = scene.requests_of(0, granted(secs(5)).min(secs(9)));
        let back = its(&local);
        claims.add(back == local.len() && back > 0, "its own node returns to it", format!("{back} of {}", local.len()));
        scene.none_failed(claims);
        scene.others_untouched(None, claims);
        scene.streams_flow(claims);
        Ok(())
    });
}

#[test]
fn agent_that_restarts_with_its_socket_loses_no_connection() {
    promise("a worker's agent is restarted, its socket inherited", async |claims| {
        let worker = 4;
        let mut cluster =
            simulations::lab::cluster::Cluster::lay_out(simulations::lab::cluster::Plan::ordinary(crate::scene::program()))?;
        let socket = std::net::TcpListener::bind(cluster.nodes[worker].proxy())?;
        cluster.start_servers().await?;
        for node in 0..cluster.nodes.len() {
            let inherited = if node == worker { Some(socket.try_clone()?.into()) } else { None };
            cluster.start_agent_with(node, inherited)?;
        }
        cluster.agreed(secs(20)).await?;
        let mut scene = Scene::of(cluster).await?;
        scene.breaks();
        let agent = scene.cluster.nodes[worker].agent()?;
        agent.terminate()?;
        let status = agent.end(secs(15)).await?;
        claims.add(status.success(), "it ends well", status);
        scene.cluster.start_agent_with(worker, Some(socket.try_clone()?.into()))?;
        scene.until(secs(9)).await;
        scene.wait(secs(20), async |scene| scene.all_flow()).await;
        scene.settle().await;
        scene.none_failed(claims);
        scene.stream_of_node_ended(worker, millis(4500), secs(7), claims);
        scene.streams_flow(claims);
        Ok(())
    });
}
