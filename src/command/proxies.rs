//! Checks the proxies that may name a client, for `--check`: no proxy, too many proxies, or a list without effect.
//!
//! How a header is read is left to `peer::upstream`.

use std::net::IpAddr;

use crate::config::{Config, ProxyProtocol};
use crate::log::Shown;
use crate::session::Lists;

use super::report::{Report, place};
use super::survey;

/// The list of proxies.
pub const LIST: &str = "qmqpd_upstream_proxy_clients";

/// Checks the parameters of `peer::upstream` together; their kinds check each alone.
pub fn check(report: &mut Report, config: &Config, lists: &Lists) {
    let Ok(protocol) = config.qmqpd_upstream_proxy_protocol() else {
        return;
    };
    let place = place(config, LIST);
    if protocol == ProxyProtocol::None {
        return;
    }
    if survey::is_empty_list(config, LIST) {
        let advice = "List the addresses of the proxies. Without them each connection is answered Z, try later.";
        let text = format!("{place}: {LIST} is empty: no client may send");
        return report.warning(&text, Some(advice));
    }
    let list = lists.qmqpd_upstream_proxy_clients.as_ref();
    let advice = "A proxy can name any client: list single addresses.";
    if list.is_some_and(|list| survey::has_everybody(list, None)) {
        let text = format!("{place}: {LIST} lets every client be a proxy");
        return report.warning(&text, Some(advice));
    }
    let literals = list.into_iter().flat_map(|list| list.literals());
    for item in literals.filter(|item| !item.negated && is_whole_network(&item.pattern)) {
        let place = item.place.clone().unwrap_or_else(|| place.clone());
        let pattern = Shown(item.pattern.as_bytes());
        let text = format!("{place}: {LIST}: each address of {pattern} may be a proxy");
        report.warning(&text, Some(advice));
    }
}

/// Checks that main.cf, or the options of a service, make the program read the list.
pub fn check_use(report: &mut Report, config: &Config, services: &[Config]) {
    let reads = |config: &Config| {
        matches!(
            config.qmqpd_upstream_proxy_protocol(),
            Ok(ProxyProtocol::Haproxy) | Err(_)
        )
    };
    if reads(config) || services.iter().any(reads) || survey::is_empty_list(config, LIST) {
        return;
    }
    let place = place(config, LIST);
    let text = format!("{place}: {LIST} has no effect: no client is behind a proxy");
    let advice =
        "qmqpd_upstream_proxy_protocol = haproxy reads the header that these proxies send.";
    report.warning(&text, Some(advice));
}

/// How a service gets its connections, if they cannot come from a proxy directly.
#[derive(Debug, Clone, Copy)]
pub enum Way {
    /// By a UNIX-domain socket.
    Unix,
    /// Another program accepts them.
    Passed,
}

/// Warns if a service that gets its connections this way expects a header of a proxy.
pub fn check_way(report: &mut Report, config: &Config, place: &str, way: Way) {
    if matches!(
        config.qmqpd_upstream_proxy_protocol(),
        Ok(ProxyProtocol::None) | Err(_)
    ) {
        return;
    }
    let why = match way {
        Way::Unix => "no proxy connects to a UNIX-domain socket, and each connection is answered Z",
        Way::Passed => "a connection of which another program has read the header is answered Z",
    };
    let text = format!("{place}: qmqpd_upstream_proxy_protocol is set: {why}");
    let advice = "\"-o qmqpd_upstream_proxy_protocol=\" unsets it for this service.";
    report.warning(&text, Some(advice));
}

/// Whether an item of a list is a network of more than one address.
fn is_whole_network(item: &str) -> bool {
    let Some((address, prefix)) = item.rsplit_once('/') else {
        return false;
    };
    let address = address.trim_start_matches('[').trim_end_matches(']');
    let (Ok(address), Ok(prefix)) = (address.parse::<IpAddr>(), prefix.parse::<u8>()) else {
        return false;
    };
    prefix < if address.is_ipv4() { 32 } else { 128 }
}
