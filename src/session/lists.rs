//! The access lists of a session, and where and as whom they are opened.

use std::path::Path;

use crate::config::{self, Config, Owner, ProxyProtocol};
use crate::exit::Fatal;
use crate::log;
use crate::lookup::{self, Listing, MatchList, RunAs, Tables};
use crate::sys::{ignore, inherit};

/// The access lists, opened while that was still allowed.
#[derive(Debug)]
pub struct Lists {
    pub qmqpd_authorized_clients: MatchList,
    pub debug_peer_list: Option<MatchList>,
    /// Where a proxy says who the client is.
    pub qmqpd_upstream_proxy_clients: Option<MatchList>,
    /// Those in the lists, and the programs that read some of them.
    pub tables: Tables,
}

impl Lists {
    /// Opens the lists with the rights that the process has now. The working directory is queue_directory.
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

    /// Whether a proxy may be at this address. A name in the list does not count: the name of the address is not looked up.
    pub fn has_proxy(&self, addr: Option<&str>) -> bool {
        let list = self.qmqpd_upstream_proxy_clients.as_ref().zip(addr);
        list.is_some_and(|(list, addr)| {
            matches!(list.match_client(None, addr), Ok(Listing::Listed))
        })
    }

    /// As [`Tables::begin`], for the tables that the lists can come to for a client at `addr`.
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

/// Goes to queue_directory. The queue's sockets are named relative to it, inside a chroot and outside.
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

/// Goes to queue_directory before lists are opened: files, tables and sockets without a leading slash are looked for where
/// Postfix's daemons are at home. A directory that cannot be reached is reported by [`enter_queue_directory`], when the
/// process goes there for good.
pub fn try_queue_directory(config: &Config) -> Result<(), config::Error> {
    ignore(enter_queue_directory(&config.queue_directory()?));
    Ok(())
}

/// The account of a program that is told a client's name; none where this process is not root, and the program runs as its
/// user.
pub fn program_owner(config: &Config) -> Result<Option<Owner>, config::Error> {
    inherit::has_root()
        .then(|| config.mail_owner_ids())
        .transpose()
}
