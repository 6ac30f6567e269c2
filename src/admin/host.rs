//! Whether a request is addressed to this agent.
//!
//! A web page that a person on this node opens can let its own name resolve to this node's address (DNS rebinding), and then
//! its script may read what is served here, since for the browser it is all one site. Such a request has the page's name in
//! `Host`. So what tells of the cluster is served only under names that are this agent's own, which no page can have.

use std::net::{IpAddr, SocketAddr};

use hyper::Request;
use hyper::header::HOST;
use hyper::http::uri::Authority;

use super::View;

/// The address at which the admin port is addressed, beside this machine's others and its name.
#[derive(Clone, Debug)]
pub struct Own {
    /// Where it listens.
    pub listener: SocketAddr,
}

impl Own {
    /// Whether a request names this agent, or none at all as HTTP/1.0 allows and no browser does. The port does not matter: it
    /// may have been forwarded.
    pub(super) fn addressed_by<B>(&self, request: &Request<B>, view: &dyn View) -> bool {
        let in_line = request.uri().authority().map(|authority| self.is(authority.host(), view));
        let in_head = request.headers().get_all(HOST).iter().map(|host| {
            let authority = host.to_str().ok().and_then(|host| host.parse::<Authority>().ok());
            // `Host` has no user.
            authority.is_some_and(|authority| !authority.as_str().contains('@') && self.is(authority.host(), view))
        });
        in_line.into_iter().chain(in_head).all(|own| own)
    }

    fn is(&self, host: &str, view: &dyn View) -> bool {
        let host = host.strip_suffix('.').unwrap_or(host);
        let literal = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        match literal.parse::<IpAddr>() {
            Ok(ip) => self.is_address(ip.to_canonical(), view),
            Err(_) => host.eq_ignore_ascii_case("localhost") || host.eq_ignore_ascii_case(&view.node()),
        }
    }

    fn is_address(&self, ip: IpAddr, view: &dyn View) -> bool {
        let listener = self.listener.ip().to_canonical();
        ip == listener || ip.is_loopback() || (listener.is_unspecified() && view.has_address(ip))
    }
}
