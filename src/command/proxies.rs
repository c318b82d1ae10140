//! What `--check` says of the proxies that may name a client: none, too many, or proxies that nothing is read from.

use std::net::IpAddr;

use crate::config::{Config, ProxyProtocol};
use crate::session::Lists;

use super::report::{Report, place};
use super::survey;

const LIST: &str = "qmqpd_upstream_proxy_clients";

/// Checks the parameters of `peer::upstream` beyond what their kinds do.
pub fn check(report: &mut Report, config: &Config, lists: &Lists) {
    let Ok(protocol) = config.qmqpd_upstream_proxy_protocol() else {
        return;
    };
    let place = place(config, LIST);
    if protocol == ProxyProtocol::None {
        if !survey::is_empty_list(config, LIST) {
            let text = format!("{place}: {LIST} has no effect: no client is behind a proxy");
            let advice =
                "qmqpd_upstream_proxy_protocol = haproxy reads the header that these proxies send.";
            report.warning(&text, Some(advice));
        }
        return;
    }
    if survey::is_empty_list(config, LIST) {
        let advice =
            "List the addresses of the proxies. Each connection is answered Z, try later, without.";
        let text = format!("{place}: {LIST} is empty: nobody may send");
        return report.warning(&text, Some(advice));
    }
    let list = lists.qmqpd_upstream_proxy_clients.as_ref();
    let advice = "A proxy can name any client: list single addresses.";
    if list.is_some_and(|list| survey::has_everybody(list, None)) {
        let text = format!("{place}: {LIST} lets everybody be a proxy");
        return report.warning(&text, Some(advice));
    }
    let patterns = config.qmqpd_upstream_proxy_clients().unwrap_or_default();
    let items = patterns.split([' ', '\t', '\n', ',']);
    for item in items.filter(|item| is_whole_network(item)) {
        let text = format!("{place}: {LIST}: each address of {item} may be a proxy");
        report.warning(&text, Some(advice));
    }
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
