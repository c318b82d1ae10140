//! The access lists of a session: where they are opened, and as which user their programs run.
//!
//! Follows `tests/spec/client-access.md`, section 1. The items of a list are left to `lookup`.

use std::path::Path;

use crate::config::{self, Config, Owner, ProxyProtocol};
use crate::exit::Fatal;
use crate::log;
use crate::lookup::{self, Listing, MatchList, RunAs, Tables};
use crate::sys::{ignore, inherit};

/// The access lists, opened before confinement.
#[derive(Debug)]
pub struct Lists {
    pub qmqpd_authorized_clients: MatchList,
    pub debug_peer_list: Option<MatchList>,
    /// The proxies; `None` if no proxy names clients.
    pub qmqpd_upstream_proxy_clients: Option<MatchList>,
    /// The tables of the lists, and the programs that read some of them.
    pub tables: Tables,
}

impl Lists {
    /// Opens the lists with the present rights of the process. The working directory is queue_directory.
    pub fn open(config: &Config) -> Result<Lists, Fatal> {
        let parents = config.parent_domain_matches_subdomains()?;
        let mut tables = Tables::new(lookup::TableSettings::from_config(config)?);
        let mut open = |list: &'static str, patterns: &str| {
            let style = lookup::parent_style(&parents, list, &mut tables)?;
            let opened = MatchList::from_patterns(list, patterns, style, &mut tables);
            opened.map_err(|error| Fatal::from(error).about(list))
        };
        let debug_peer_list = config.debug_peer_list()?;
        let debug_peer_list = (!debug_peer_list.is_empty())
            .then(|| open("debug_peer_list", &debug_peer_list))
            .transpose()?;
        let qmqpd_authorized_clients = open(
            "qmqpd_authorized_clients",
            &config.qmqpd_authorized_clients()?,
        )?;
        let qmqpd_upstream_proxy_clients = match config.qmqpd_upstream_proxy_protocol()? {
            ProxyProtocol::None => None,
            ProxyProtocol::Haproxy => Some(open(
                "qmqpd_upstream_proxy_clients",
                &config.qmqpd_upstream_proxy_clients()?,
            )?),
        };
        // parent_domain_matches_subdomains can have tables too.
        tables.close_unused();
        Ok(Lists {
            qmqpd_authorized_clients,
            debug_peer_list,
            qmqpd_upstream_proxy_clients,
            tables,
        })
    }

    /// Whether this address is a proxy's. A name in the list does not count: the name of the address is not looked up.
    pub fn has_proxy(&self, addr: Option<&str>) -> bool {
        let list = self.qmqpd_upstream_proxy_clients.as_ref().zip(addr);
        list.is_some_and(|(list, addr)| {
            matches!(list.match_client(None, addr), Ok(Listing::Listed))
        })
    }

    /// Starts what [`Tables::begin`] starts, for the tables that the lists can come to for a client at `addr`.
    pub fn begin(&self, addr: Option<&str>, run_as: RunAs<'_>) {
        if !self.tables.have_programs() {
            return;
        }
        let lists = self.debug_peer_list.iter();
        let lists = lists.chain(&self.qmqpd_upstream_proxy_clients);
        let lists = lists.chain([&self.qmqpd_authorized_clients]);
        self.tables
            .begin(lists.flat_map(|list| list.reached(addr)), run_as);
    }
}

/// Enters queue_directory. The queue's sockets are named relative to it, inside and outside a chroot.
pub fn enter_queue_directory(queue_directory: &Path) -> Result<(), Fatal> {
    std::env::set_current_dir(queue_directory).map_err(|error| {
        let text = format!(
            "chdir(\"{}\"): {}",
            queue_directory.display(),
            log::error_text(&error)
        );
        Fatal::Parameter("queue_directory", text)
    })
}

/// Enters queue_directory before the lists are opened, because relative names of files, tables and sockets start there,
/// as with Postfix's daemons. [`enter_queue_directory`] reports an error later.
pub fn try_queue_directory(config: &Config) -> Result<(), config::Error> {
    ignore(enter_queue_directory(&config.queue_directory()?));
    Ok(())
}

/// The account that runs a program that is told a client's name; `None` if this process is not root, and the program
/// runs as its user.
pub fn program_owner(config: &Config) -> Result<Option<Owner>, config::Error> {
    inherit::has_root()
        .then(|| config.mail_owner_ids())
        .transpose()
}
