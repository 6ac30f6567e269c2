//! What is promised besides the table: finding the cluster, finding it again, and whom not to trust.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use simulations::lab::apiserver::bulk_byte;
use simulations::lab::ca::Ca;
use simulations::lab::client::{FirstByte, Target};
use simulations::lab::cluster::{Apiserver, Cluster, Node, Plan};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep};

use crate::bounds::{Claims, either, granted, promise, strict};
use crate::scene::{millis, program, secs};

/// Between two looks.
const LOOK: Duration = Duration::from_millis(20);

/// Three control-plane nodes and two workers without an external balancer: what they know, they know by gossip.
fn gossip_alone() -> Plan {
    Plan { external: false, ..Plan::ordinary(program()) }
}

/// Waits until something is so, and says how long it took.
async fn wait(within: Duration, so: impl AsyncFn() -> bool) -> Option<Duration> {
    let begin = Instant::now();
    while begin.elapsed() <= within {
        if so().await {
            return Some(begin.elapsed());
        }
        sleep(LOOK).await;
    }
    None
}

/// The endpoints that a node knows.
async fn known(node: &Node) -> Vec<String> {
    node.status().await.map(|status| status.upstreams.into_iter().map(|upstream| upstream.endpoint).collect()).unwrap_or_default()
}

async fn knows(node: &Node, endpoint: SocketAddr) -> bool {
    known(node).await.contains(&endpoint.to_string())
}

#[test]
fn worker_learns_the_control_plane_from_one_seed() {
    promise("a worker with one seed and no external endpoint", async |claims| {
        let mut cluster = Cluster::lay_out(gossip_alone())?;
        let worker = cluster.nodes.len() - 1;
        cluster.start_servers().await?;
        for node in 0..worker {
            cluster.start_agent(node)?;
        }
        cluster.agreed(secs(20)).await?;
        cluster.nodes[worker].seeds.truncate(1);
        cluster.start_agent(worker)?;
        let apiservers: Vec<SocketAddr> = cluster.apiservers.iter().map(|apiserver| apiserver.addr).collect();
        let learnt = wait(granted(secs(3)), async || cluster.knows(worker, &apiservers).await).await;
        claims.add(learnt.is_some(), "knows all control-plane endpoints within 3 s", format!("{learnt:.2?}"));
        Ok(())
    });
}

#[test]
fn node_restarted_alone_serves_from_what_it_remembers() {
    promise("a node restarts, all seeds and peers dead, its state directory kept", async |claims| {
        let mut cluster = Cluster::start(gossip_alone()).await?;
        let worker = cluster.nodes.len() - 1;
        // Killed, not asked: what it remembers must be on disk by itself.
        let cache = cluster.dir().join(format!("{}-state", cluster.nodes[worker].name));
        let written = wait(secs(15), async || has_files(&cache)).await;
        claims.add(written.is_some(), "it writes down what it knows", format!("{written:.2?}"));
        sleep(secs(2)).await;
        for node in &mut cluster.nodes {
            node.agent = None;
        }
        let target = cluster.through(worker, "/api")?;
        let begin = Instant::now();
        cluster.start_agent(worker)?;
        let mut served = false;
        while !served && begin.elapsed() < granted(secs(1)) {
            served = target.get(secs(10)).await.is_ok();
            sleep(millis(5)).await;
        }
        let took = begin.elapsed();
        claims.add(served && took <= granted(secs(1)), "serves within 1 s of starting", format!("{took:.2?}"));
        Ok(())
    });
}

fn has_files(dir: &Path) -> bool {
    std::fs::read_dir(dir).is_ok_and(|entries| entries.count() > 0)
}

#[test]
fn control_plane_node_that_moves_is_found_and_its_old_address_forgotten() {
    promise("a control-plane node comes back at another address", async |claims| {
        let mut cluster = Cluster::start(gossip_alone()).await?;
        let (moving, new_host) = (2, 231);
        let old = cluster.apiservers[moving].addr;
        cluster.nodes[moving].agent = None;
        cluster.apiservers[moving].process = None;
        sleep(secs(2)).await;
        let options = cluster.apiserver_options("api-3-moved", new_host)?;
        let new = options.listen;
        cluster.apiservers[moving] = Apiserver::lab(&program(), &options);
        cluster.start_apiserver(moving)?;
        cluster.apiserver_ready(moving).await?;
        cluster.nodes[moving].ip = cluster.subnet().host(new_host + 1);
        cluster.nodes[moving].apiserver = Some(new);
        let begin = Instant::now();
        cluster.start_agent(moving)?;
        for node in &cluster.nodes {
            let within = granted(secs(5)).saturating_sub(begin.elapsed());
            let found = wait(within, async || knows(node, new).await && !knows(node, old).await).await;
            let should = format!("{} knows the new address within 5 s, the old one is gone", node.name);
            claims.add(found.is_some(), &should, format!("{:.2?}, knows {:?}", begin.elapsed(), known(node).await));
        }
        Ok(())
    });
}

#[test]
fn endpoint_of_another_ca_never_sees_a_client() {
    promise("a member advertises an endpoint that the CA did not sign", async |claims| {
        let mut cluster = Cluster::start(gossip_alone()).await?;
        let rogue = add_rogue(&mut cluster, true).await?;
        cluster.start_agent(rogue)?;
        let workers = [3, 4];
        let told = wait(secs(10), async || knows(&cluster.nodes[3], cluster.apiservers[3].addr).await).await;
        claims.add(told.is_some(), "the others hear of it", format!("{told:.2?}"));
        // Clients ask for another name than probes do, so that their hellos can be told apart.
        for index in 0..3 {
            cluster.apiservers[index].process = None;
        }
        for round in 0..10 {
            if round == 5 {
                (0..3).try_for_each(|index| cluster.start_apiserver(index))?;
            }
            for worker in workers {
                let target = cluster.through(worker, "/api")?.named("localhost")?;
                tokio::spawn(async move { target.get(secs(9)).await });
            }
            sleep(millis(500)).await;
        }
        sleep(secs(2)).await;
        let seen = cluster.apiservers[3].process()?.output();
        let (probes, clients) = (seen.matches(r#""hello":"kubernetes""#).count(), seen.matches(r#""hello":"localhost""#).count());
        claims.add(probes > 0, "it was probed", probes);
        claims.add(clients == 0, "no client byte ever reached it", clients);
        Ok(())
    });
}

/// Adds a control-plane node with an apiserver of its own, not started; its certificate is signed by another CA if asked.
async fn add_rogue(cluster: &mut Cluster, other_ca: bool) -> Result<usize> {
    let (apiserver_host, node_host) = (240, 241);
    let mut options = cluster.apiserver_options("api-rogue", apiserver_host)?;
    if other_ca {
        let pair = Ca::create(cluster.dir(), "other-ca")?.server("rogue", &[options.listen.ip()])?;
        (options.cert, options.key) = (pair.cert, pair.key);
    }
    options.tell_hellos = true;
    cluster.apiservers.push(Apiserver::lab(&program(), &options));
    let index = cluster.apiservers.len() - 1;
    cluster.start_apiserver(index)?;
    cluster.apiservers[index].process()?.ready(secs(10)).await?;
    let like = cluster.nodes.first().context("a node")?;
    let node = Node {
        name: "rogue".to_owned(),
        ip: cluster.subnet().host(node_host),
        apiserver: Some(options.listen),
        seeds: like.seeds.clone(),
        external: None,
        flags: Vec::new(),
        cluster: like.cluster.clone(),
        keyring: like.keyring.clone(),
        agent: None,
    };
    cluster.nodes.push(node);
    Ok(cluster.nodes.len() - 1)
}

#[test]
fn node_without_the_key_learns_nothing_and_changes_nothing() {
    promise("a node with another key", async |claims| {
        let mut cluster = Cluster::start(gossip_alone()).await?;
        let outsider = add_rogue(&mut cluster, false).await?;
        cluster.nodes[outsider].keyring = cluster.make_keyring("another-keyring")?;
        stays_outside(&mut cluster, outsider, claims).await
    });
}

#[test]
fn node_of_another_cluster_learns_nothing_and_changes_nothing() {
    promise("a node of another cluster, with the same key", async |claims| {
        let mut cluster = Cluster::start(gossip_alone()).await?;
        let outsider = add_rogue(&mut cluster, false).await?;
        cluster.nodes[outsider].cluster = "another".to_owned();
        stays_outside(&mut cluster, outsider, claims).await
    });
}

async fn stays_outside(cluster: &mut Cluster, outsider: usize, claims: &mut Claims) -> Result<()> {
    cluster.start_agent(outsider)?;
    // Members find one another within 3 s.
    sleep(secs(5)).await;
    let (inside, outside) = cluster.nodes.split_at(outsider);
    let outside = outside.first().context("the outsider")?;
    let size = inside.len() as u64;
    let own = outside.apiserver.context("the outsider's apiserver")?;
    let learnt: Vec<String> = known(outside).await.into_iter().filter(|endpoint| *endpoint != own.to_string()).collect();
    claims.add(outside.status().await.is_ok(), "the outsider runs", "");
    claims.add(learnt.is_empty(), "the outsider learns nothing", format!("{learnt:?}"));
    for node in inside {
        let status = node.status().await?;
        let unchanged = status.cluster_size == size && status.verdict(own).is_none();
        let should = format!("{} knows nothing of the outsider", node.name);
        claims.add(unchanged, &should, format!("size {} of {size}, {:?}", status.cluster_size, known(node).await));
    }
    Ok(())
}

#[test]
fn client_that_stops_reading_loses_nothing() {
    promise("a client stops reading", async |claims| {
        let cluster = Cluster::start(Plan::ordinary(program())).await?;
        let bytes: u64 = 64 << 20;
        let pause = either(secs(60), secs(6));
        let target = cluster.through(3, &format!("/bulk?bytes={bytes}"))?;
        let (read, wrong) = read_with_a_pause(&target, pause).await?;
        claims.add(
            read == bytes && wrong.is_none(),
            &format!("all {bytes} bytes come, after a pause of {pause:?}"),
            format!("{read}, wrong at {wrong:?}"),
        );
        Ok(())
    });
}

/// Reads some, waits, reads the rest: how many bytes of the body came, and the first that is not what was sent.
async fn read_with_a_pause(target: &Target, pause: Duration) -> Result<(u64, Option<u64>)> {
    let mut stream = target.connect(&FirstByte::default()).await?;
    let request = format!("GET {} HTTP/1.0\r\nhost: kubernetes\r\n\r\n", target.path);
    stream.write_all(request.as_bytes()).await?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.context("the answer's head")?);
    }
    let (mut place, mut wrong, mut paused) = (0_u64, None, false);
    let mut buffer = vec![0; 64 * 1024];
    loop {
        if place > 1 << 20 && !paused {
            paused = true;
            sleep(pause).await;
        }
        let count = match stream.read(&mut buffer).await {
            Ok(0) => return Ok((place, wrong)),
            Ok(count) => count,
            // HTTP/1.0 ends with the connection; that the server says no farewell to TLS is no loss.
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok((place, wrong)),
            Err(error) => return Err(error.into()),
        };
        for byte in buffer.iter().take(count) {
            if *byte != bulk_byte(place) {
                wrong.get_or_insert(place);
            }
            place += 1;
        }
    }
}

#[test]
fn idle_agents_cost_next_to_nothing() {
    promise("five nodes, idle", async |claims| {
        let cluster = Cluster::start(Plan::ordinary(program())).await?;
        // The start is not idle.
        sleep(secs(5)).await;
        let pids: Vec<u32> = cluster.nodes.iter().filter_map(|node| node.agent.as_ref()).map(|agent| agent.pid()).collect();
        let before = pids.iter().map(|pid| cpu_time(*pid)).collect::<Result<Vec<_>>>()?;
        let span = secs(10);
        sleep(span).await;
        for ((node, pid), before) in cluster.nodes.iter().zip(&pids).zip(before) {
            let share = (cpu_time(*pid)? - before).as_secs_f64() / span.as_secs_f64();
            let resident = resident_kib(*pid)?;
            let (most_share, most_kib) = if strict() { (0.01, 20 * 1024) } else { (0.05, 100 * 1024) };
            claims.add(
                share < most_share,
                &format!("{} uses under {:.0}% of a core", node.name, most_share * 100.0),
                format!("{:.2}%", share * 100.0),
            );
            claims.add(
                resident <= most_kib,
                &format!("{} has at most {} MiB resident", node.name, most_kib / 1024),
                format!("{:.1} MiB", resident as f64 / 1024.0),
            );
        }
        Ok(())
    });
}

/// A process's time on a core so far, from `/proc/PID/stat` (proc(5): fields 14 and 15, in ticks of 10 ms).
fn cpu_time(pid: u32) -> Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The second field, the name in brackets, may hold spaces.
    let (_, rest) = stat.rsplit_once(')').context("a name in brackets")?;
    let ticks: u64 = rest.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Ok(Duration::from_millis(10 * ticks))
}

/// A process's resident memory.
fn resident_kib(pid: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
    Ok(line.trim().trim_end_matches("kB").trim().parse()?)
}
