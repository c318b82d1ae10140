//! The access lists of a session, and where and as whom they are opened.

use std::path::Path;

use crate::config::{self, Config, Owner};
use crate::exit::Fatal;
use crate::log;
use crate::lookup::{self, MatchList, RunAs, Tables};
use crate::sys::{ignore, inherit};

/// The access lists, opened while that was still allowed.
#[derive(Debug)]
pub struct Lists {
    pub qmqpd_authorized_clients: MatchList,
    pub debug_peer_list: Option<MatchList>,
}

impl Lists {
    /// Opens the lists with the rights that the process has now. The working directory is queue_directory.
    pub fn open(config: &Config) -> Result<Lists, Fatal> {
        let parents = config.parent_domain_matches_subdomains()?;
        let mut tables = Tables::new(lookup::Settings::from_config(config)?);
        let mut open = |list: &'static str, patterns: &str| {
            let style = lookup::parent_style(&parents, list, &mut tables)?;
            Ok::<_, Fatal>(MatchList::open(list, patterns, style, &mut tables)?)
        };
        let debug_peer_list = config.debug_peer_list()?;
        Ok(Lists {
            debug_peer_list: if debug_peer_list.is_empty() {
                None
            } else {
                Some(open("debug_peer_list", &debug_peer_list)?)
            },
            qmqpd_authorized_clients: open(
                "qmqpd_authorized_clients",
                &config.qmqpd_authorized_clients()?,
            )?,
        })
    }

    fn all(&self) -> impl Iterator<Item = &MatchList> {
        let debug_peer_list = self.debug_peer_list.iter();
        debug_peer_list.chain([&self.qmqpd_authorized_clients])
    }

    /// Whether there are lookup tables in the lists.
    pub fn have_tables(&self) -> bool {
        self.all().any(MatchList::has_tables)
    }

    /// As [`MatchList::runs_programs`].
    pub fn run_programs(&self) -> bool {
        self.all().any(MatchList::runs_programs)
    }

    /// As [`MatchList::start`].
    pub fn start(&self, addr: Option<&str>, run_as: RunAs<'_>) {
        self.all().for_each(|list| list.start(addr, run_as));
    }

    /// As [`MatchList::take_snapshots`].
    pub fn take_snapshots(&self) {
        self.all().for_each(MatchList::take_snapshots);
    }

    /// As [`MatchList::finish`].
    pub fn finish(&self) {
        self.all().for_each(MatchList::finish);
    }

    /// A table of theirs that has changed on disk since they were opened.
    pub fn changed_table(&self) -> Option<String> {
        self.all().find_map(MatchList::changed_table)
    }
}

/// Goes to queue_directory. The queue's sockets are named relative to it, inside a chroot and outside.
pub fn enter_queue_directory(queue_directory: &Path) -> Result<(), Fatal> {
    std::env::set_current_dir(queue_directory).map_err(|error| {
        Fatal::Text(format!(
            "chdir(\"{}\"): {}",
            queue_directory.display(),
            log::error_text(&error)
        ))
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
