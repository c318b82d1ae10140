//! `qmqpd --explain ADDRESS [NAME] ...`: prints whether clients are let in, and which item decides.
//!
//! Evaluates the same as a serving process, in the same order: inet_protocols, the client's name, debug_peer_list,
//! qmqpd_authorized_clients. Follows `tests/spec/client-access.md`, sections 1 and 2. Nothing is logged.

use std::net::IpAddr;

use crate::config::{Config, Place, valid_hostname};
use crate::exit::{EX_CONFIG, EX_USAGE, Fatal};
use crate::log;
use crate::lookup::{Listing, MatchList, Unavailable};
use crate::options::Options;
use crate::peer::{Ask, LOOKUP_LIMIT, Peer};
use crate::queue::Method;
use crate::session::{Lists, SessionSettings, program_owner, try_queue_directory};

use super::help::print;
use super::report::{for_people, place};
use super::survey::load;

/// A client to explain.
struct Subject {
    address: IpAddr,
    /// The client's name, if it is given; otherwise the resolver's name counts.
    name: Option<String>,
}

impl Subject {
    /// Reads addresses in the form of lists or of log lines, with or without brackets, each with an optional name after
    /// it. The error names the first word that is neither an address nor a name.
    fn parse(words: &[String]) -> Result<Vec<Subject>, String> {
        let mut subjects: Vec<Subject> = Vec::new();
        for word in words {
            let inside = word.strip_prefix('[').and_then(|a| a.strip_suffix(']'));
            if let Ok(address) = inside.unwrap_or(word).parse() {
                let name = None;
                subjects.push(Subject { address, name });
                continue;
            }
            match subjects.last_mut() {
                None => {
                    return Err(format!(
                        "\"{word}\" is no address: say, for example, --explain 192.0.2.1"
                    ));
                }
                Some(Subject { name: Some(_), .. }) => {
                    return Err(format!("unexpected command-line argument: {word}"));
                }
                Some(subject) => subject.name = Some(Subject::name(word)?),
            }
        }
        Ok(subjects)
    }

    /// Checks a client's name, and removes a dot at its end.
    fn name(word: &str) -> Result<String, String> {
        let name = word.strip_suffix('.').unwrap_or(word);
        match valid_hostname(name.as_bytes()) {
            Ok(()) => Ok(name.to_owned()),
            Err(_) => Err(format!("\"{word}\" is neither an address nor a host name")),
        }
    }
}

/// Returns the exit status: 0 if all clients are let in, 1 if one is refused, 78 if the answer for one cannot be
/// determined, 64 if a word is wrong.
///
/// If the name is looked up, the answer for a failed lookup is printed too, if it is different.
pub fn run(clients: &[String], options: &Options, process: &str) -> u8 {
    let subjects = match Subject::parse(clients) {
        Ok(subjects) => subjects,
        Err(text) => {
            print(&format!("qmqpd: {text}\n"));
            return EX_USAGE;
        }
    };
    let config = match load(options, process) {
        Ok(config) => config,
        Err(error) => return show(Err(error.into())),
    };
    let mut explanation = match Explanation::open(&config) {
        Ok(explanation) => explanation,
        Err(fatal) => return show(Err(fatal.located(&config))),
    };
    let codes = (0..).zip(subjects).map(|(number, subject)| {
        if number > 0 {
            print("\n");
        }
        show(
            explanation
                .explain(&subject)
                .map_err(|fatal| fatal.located(&config)),
        )
    });
    codes.max().unwrap_or(EX_USAGE)
}

/// Prints the answer for one client, or the error in its place.
fn show(explained: Result<Explained, Fatal>) -> u8 {
    let cannot_tell = explained.is_err();
    let (mut text, code) = match explained {
        Ok(Explained { text, listing }) => match listing {
            Listing::Listed => (text, 0),
            Listing::NotListed => (text, 1),
            Listing::Undecided => (text, EX_CONFIG),
        },
        Err(fatal) => {
            let mut text = format!("cannot tell: {}\n", for_people(&fatal.to_string()));
            if let Fatal::Config(error) = &fatal {
                for warning in error.warnings() {
                    text.push_str(&format!("    {warning}\n"));
                }
            }
            (text, EX_CONFIG)
        }
    };
    for (_, line) in log::take_kept() {
        text.push_str(&format!("note: {}\n", for_people(&line)));
    }
    if cannot_tell {
        text.push_str("Such a client is answered Z, try later. \"qmqpd --check\" says more.\n");
    }
    print(&text);
    code
}

/// The parts of main.cf that are the same for every client.
struct Explanation<'a> {
    config: &'a Config,
    settings: SessionSettings,
    lists: Lists,
}

struct Explained {
    text: String,
    listing: Listing,
}

impl<'a> Explanation<'a> {
    fn open(config: &'a Config) -> Result<Explanation<'a>, Fatal> {
        // An error in one of these concerns every client.
        let settings = SessionSettings::from_config(config)?;
        Method::from_config(config)?;
        try_queue_directory(config)?;
        let lists = Lists::open(config)?;
        Ok(Explanation {
            config,
            settings,
            lists,
        })
    }

    fn explain(&mut self, subject: &Subject) -> Result<Explained, Fatal> {
        let Explanation {
            config,
            settings,
            lists,
        } = self;
        let peer = client(subject, config)?;
        lists.begin(Some(&peer.addr), &|| program_owner(config));
        let explained = explain(subject, config, settings, lists, &peer);
        lists.tables.end();
        explained
    }
}

fn explain(
    subject: &Subject,
    config: &Config,
    settings: &SessionSettings,
    lists: &Lists,
    peer: &Peer,
) -> Result<Explained, Fatal> {
    let mut text = format!("client {}\n", peer.namaddr());
    if let Some(list) = &lists.debug_peer_list {
        verdict(list, "debug_peer_list", config, peer, &mut text)?;
    }
    let list = &lists.qmqpd_authorized_clients;
    let listing = verdict(list, "qmqpd_authorized_clients", config, peer, &mut text)?;
    match listing {
        Listing::Listed => text.push_str("The client is let in.\n"),
        Listing::NotListed => text.push_str(&refusal(config, settings, peer)),
        Listing::Undecided => text.push_str(&format!(
            "The client is told to try later: {}\n",
            postponed(peer)
        )),
    }
    if subject.name.is_none() && config.qmqpd_peername_lookup()? && !peer.is_name_open {
        text.push_str(&without_name(list, peer, listing));
    }
    Ok(Explained { text, listing })
}

/// The reply to a client whose name is open.
fn postponed(peer: &Peer) -> String {
    format!(
        "ZError: unknown[{}]: name lookup failed, try again later",
        peer.addr
    )
}

/// The answer if the lookup of the name fails another time; empty if it is the same.
fn without_name(list: &MatchList, peer: &Peer, listing: Listing) -> String {
    match list.decide(None, &peer.addr) {
        Ok(decision) if decision.listing == listing => String::new(),
        Ok(decision) => {
            let item = decision
                .item
                .map(|item| item.to_string())
                .unwrap_or_default();
            format!(
                "If the name of the client cannot be looked up for now, the client is told to try later, because of {item}:\n    {}\n",
                postponed(peer)
            )
        }
        Err(_) => {
            "If the name of the client cannot be looked up for now, the client is told to try later: a part of the list cannot be evaluated.\n"
                .to_owned()
        }
    }
}

/// The client as in a session.
fn client(subject: &Subject, config: &Config) -> Result<Peer, Fatal> {
    let ask = Ask {
        protocols: config.inet_protocols()?,
        names: subject.name.is_none() && config.qmqpd_peername_lookup()?,
        environment: false,
        sandbox: config.qmqpd_sandbox()?,
        lookup_limit: LOOKUP_LIMIT,
    };
    let mut peer = Peer::remote(subject.address, None, &ask)?;
    if let Some(name) = &subject.name {
        peer.name.clone_from(name);
    }
    Ok(peer)
}

/// Prints which item of the list decides, and returns whether the list has the client.
fn verdict(
    list: &MatchList,
    name: &str,
    config: &Config,
    peer: &Peer,
    text: &mut String,
) -> Result<Listing, Fatal> {
    let place = place(config, name);
    let decision = list
        .decide(peer.name_for_lists(), &peer.addr)
        .map_err(|Unavailable { warnings }| Fatal::Text(warnings.join("\n    ")))?;
    let listed = match decision.listing {
        Listing::Listed => "listed",
        Listing::NotListed => "not listed",
        Listing::Undecided => "depends on its name",
    };
    let line = match decision.item {
        Some(item) => format!("{name}: {listed}, because of {item}\n    ({place})\n"),
        None => format!("{name}: {listed}, no item matches\n    ({place})\n"),
    };
    text.push_str(&line);
    Ok(decision.listing)
}

/// The reply to the client, and the change that would let it in.
fn refusal(config: &Config, settings: &SessionSettings, peer: &Peer) -> String {
    let status = if settings.soft_bounce { 'Z' } else { 'D' };
    let mut text = format!(
        "The client is refused: {status}Error: {} is not authorized to use this service\n",
        peer.namaddr()
    );
    let item = if peer.addr.contains(':') {
        format!("[{}]", peer.addr)
    } else {
        peer.addr.clone()
    };
    text.push_str(&format!(
        "To let it in, put {item} before what excludes it, or anywhere if nothing does, in\n\
         qmqpd_authorized_clients in {}.\n",
        match config.place_of("qmqpd_authorized_clients") {
            Some(Place::CommandLine) => "the option -o".to_owned(),
            Some(Place::Line(_)) | None => config.main_cf(),
        }
    ));
    if peer.name == "unknown" && !peer.is_name_open {
        text.push_str(
            "Names in the list do not match this client: it has no name that resolves back to its address,\n\
             or its name was not looked up (qmqpd_peername_lookup).\n",
        );
    }
    text
}
