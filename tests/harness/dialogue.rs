//! A dialogue file: what a client says, and what has to come of it. `tests/dialogue/README.md` describes the form.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;

use super::outcome::{LOG, Outcome, QUEUE, SECTIONS};
use super::peers::{Act, Launch};
use super::server::{self, Server, Setting};
use super::{text, versions};

/// Runs that go on at the same time. Most of them wait most of the time.
const AT_ONCE: usize = 6;

/// How often a line may stand in a row before it is written once, with a number.
const ROW: usize = 4;

/// One dialogue.
pub struct Dialogue {
    pub path: PathBuf,
    /// The lines up to the first that says what came of it, as they stand in the file.
    head: Vec<String>,
    pub setting: Setting,
    /// Whether all ten attributes of the client are written out.
    in_full: bool,
    /// The difference, of those that we want, that shows here.
    pub differs: Option<String>,
    /// Why Postfix is not asked.
    pub unasked: Option<String>,
    /// The installed Postfix does what we do: its version is on our side of a row of the table of versions.
    agrees: bool,
    ours: Outcome,
    /// What Postfix does where that is something else.
    postfix: [Option<Vec<String>>; 4],
}

impl Dialogue {
    /// Reads a file; an error names the line.
    pub fn read(path: &Path) -> Result<Dialogue, String> {
        let mut dialogue = Dialogue {
            path: path.to_path_buf(),
            head: Vec::new(),
            setting: Setting::default(),
            in_full: false,
            differs: None,
            unasked: None,
            agrees: false,
            ours: Outcome::default(),
            postfix: [const { None }; 4],
        };
        let file = fs::read_to_string(path).map_err(|error| error.to_string())?;
        for (number, line) in file.lines().enumerate() {
            dialogue
                .add(line)
                .map_err(|error| format!("line {}: {error}", number + 1))?;
        }
        if !dialogue
            .head
            .first()
            .is_some_and(|line| line.starts_with("# "))
        {
            return Err("the first line must say what is shown: # ...".into());
        }
        Ok(dialogue)
    }

    fn add(&mut self, line: &str) -> Result<(), String> {
        let (key, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        if self.add_result(key, value)? {
            return Ok(());
        }
        let setting = &mut self.setting;
        match key {
            _ if line.starts_with('#') => {}
            "" => return Ok(()),
            "conf" => setting.conf.push(unfold(value)?),
            "file" => {
                let (name, content) = value.split_once(' ').ok_or("file: NAME CONTENT")?;
                setting.files.push((name.into(), text::read(content)?));
            }
            "env" => {
                let (name, value) = value.split_once('=').ok_or("env: NAME=VALUE")?;
                setting.env.push((name.into(), value.into()));
            }
            "launch" => {
                let late = value.strip_suffix(", late");
                setting.late = late.is_some();
                setting.launch = Launch::read(late.unwrap_or(value))?;
            }
            "cleanup" => setting.cleanup.add(value)?,
            "c" => setting.client.push(Act::read(value)?),
            "show" if value == "attributes" => self.in_full = true,
            "differs" => self.differs = Some(value.into()),
            "postfix" => self.add_exception(value)?,
            _ => return Err(format!("unknown: {line}")),
        }
        self.head.push(line.into());
        Ok(())
    }

    /// Takes what follows `postfix:`, why it is not asked or which versions of it agree with us.
    fn add_exception(&mut self, value: &str) -> Result<(), String> {
        let row = |rest: &str| {
            let page = rest.strip_prefix("tests/spec/")?;
            let number = page.strip_prefix("versions.md, ")?;
            number.parse().ok().map(versions::has)
        };
        if let Some(why) = value.strip_prefix("not asked, ") {
            self.unasked = Some(why.into());
        } else if let Some(has) = value.strip_prefix("agrees since ").and_then(row) {
            self.agrees = has;
        } else if let Some(has) = value.strip_prefix("agrees before ").and_then(row) {
            self.agrees = !has;
        } else if let Some(has) = value.strip_prefix("asked since ").and_then(row) {
            self.unasked = (!has).then(|| "the installed version has the older form".into());
        } else {
            return Err("not asked, WHY; agrees since or before, asked since a row".into());
        }
        Ok(())
    }

    /// Takes a line that says what came of it; false if it is something else.
    fn add_result(&mut self, key: &str, value: &str) -> Result<bool, String> {
        let (whose, key) = match key.strip_prefix("postfix ") {
            Some(key) => (Server::Postfix, key),
            None => (Server::Ours, key),
        };
        let (key, times) = key.split_once('*').unwrap_or((key, "1"));
        let Some(section) = SECTIONS.iter().position(|section| *section == key) else {
            return Ok(false);
        };
        let times: usize = times
            .parse()
            .map_err(|error| format!("{times:?} times: {error}"))?;
        let lines = match whose {
            Server::Ours => &mut self.ours[section],
            Server::Postfix => self.postfix[section].get_or_insert_default(),
        };
        if value != NOTHING {
            lines.extend(std::iter::repeat_n(value.to_string(), times));
        }
        Ok(true)
    }

    /// What `server` has to do.
    fn expected(&self, server: Server) -> Outcome {
        let mut outcome = self.ours.clone();
        if server == Server::Postfix && !self.agrees {
            for (lines, theirs) in outcome.iter_mut().zip(&self.postfix) {
                if let Some(theirs) = theirs {
                    lines.clone_from(theirs);
                }
            }
        }
        outcome
    }

    fn run(&self, server: Server) -> Outcome {
        let mut seen = server::run(server, &self.setting);
        seen.in_full = self.in_full;
        match server {
            Server::Ours => seen.outcome(),
            Server::Postfix => seen.of_postfix().outcome(),
        }
    }

    /// Writes into the file what Postfix did: as what has to happen, or beside it if we differ on purpose.
    fn record(&mut self, outcome: Outcome) {
        if self.agrees {
            // Another version says what is written.
            return;
        }
        let written = self.ours.iter().any(|lines| !lines.is_empty());
        if self.differs.is_some() && written {
            for (section, lines) in outcome.into_iter().enumerate() {
                self.postfix[section] = (lines != self.ours[section]).then_some(lines);
            }
        } else {
            self.ours = outcome;
        }
        fs::write(&self.path, self.text()).unwrap();
    }

    /// The file, as [`record`] writes it.
    pub fn text(&self) -> String {
        let mut text = self.head.join("\n") + "\n";
        for (section, name) in SECTIONS.iter().enumerate() {
            let before = text.len();
            write_lines(&mut text, name, &self.ours[section]);
            if let Some(lines) = &self.postfix[section] {
                write_lines(&mut text, &format!("postfix {name}"), lines);
                if lines.is_empty() {
                    text.push_str(&format!("postfix {name}: {NOTHING}\n"));
                }
            }
            // The reply stands below what it answers; the rest has paragraphs of its own.
            if section > 0 && text.len() > before {
                text.insert(before, '\n');
            }
        }
        text
    }
}

/// Stands for no line at all, where only that tells Postfix from us.
const NOTHING: &str = "<nothing>";

fn write_lines(text: &mut String, name: &str, mut lines: &[String]) {
    while let Some(line) = lines.first() {
        let mut times = lines.iter().take_while(|other| *other == line).count();
        let key = if times > ROW {
            format!("{name}*{times}")
        } else {
            name.into()
        };
        if times <= ROW {
            times = 1;
        }
        text.push_str(format!("{key}: {line}").trim_end());
        text.push('\n');
        lines = &lines[times..];
    }
}

/// A `conf:` value may hold bytes that a dialogue file has to escape; braces stand for themselves.
fn unfold(value: &str) -> Result<String, String> {
    let escaped = value.replace('{', "\\{").replace('}', "\\}");
    String::from_utf8(text::read(&escaped)?).map_err(|error| error.to_string())
}

/// Every dialogue of `tests/dialogue`, or those whose file name contains `QMQPD_DIALOGUE`, in order.
pub fn all() -> Vec<Dialogue> {
    let wanted = std::env::var("QMQPD_DIALOGUE").unwrap_or_default();
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dialogue");
    let mut paths: Vec<PathBuf> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.retain(|path| {
        path.extension().is_some_and(|end| end == "txt") && name_of(path).contains(&wanted)
    });
    paths.sort();
    assert!(!paths.is_empty(), "no dialogue is named like {wanted:?}");
    let read = |path: &PathBuf| {
        Dialogue::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    paths.iter().map(read).collect()
}

fn name_of(path: &Path) -> String {
    path.file_stem()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

/// Runs every dialogue through `server`. Panics at the end if any went otherwise than written, with all of them.
pub fn check(server: Server, dialogues: &[Dialogue]) {
    let failures = Mutex::new(Vec::new());
    at_once(dialogues.len(), |index| {
        let dialogue = &dialogues[index];
        let (mut expected, mut outcome) = (dialogue.expected(server), dialogue.run(server));
        if server == Server::Postfix {
            for outcome in [&mut expected, &mut outcome] {
                outcome[LOG] = versions::coarsen(std::mem::take(&mut outcome[LOG]));
            }
        }
        if !agree(&expected, &outcome) {
            let report = format!(
                "{}\n{}",
                name_of(&dialogue.path),
                difference(&expected, &outcome)
            );
            failures.lock().unwrap().push(report);
        }
    });
    let mut failures = failures.into_inner().unwrap();
    failures.sort();
    let count = failures.len();
    assert!(
        failures.is_empty(),
        "{count} of {} dialogues:\n\n{}",
        dialogues.len(),
        failures.join("\n")
    );
}

/// Writes what Postfix does into every file.
pub fn record(dialogues: &mut [Dialogue]) {
    let cells: Vec<_> = dialogues.iter_mut().map(Mutex::new).collect();
    at_once(cells.len(), |index| {
        let mut dialogue = cells[index].lock().unwrap();
        let outcome = dialogue.run(Server::Postfix);
        dialogue.record(outcome);
    });
}

/// Calls `work` with every number below `count`, several at a time.
pub fn at_once(count: usize, work: impl Fn(usize) + Sync) {
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(index) =
                    Some(next.fetch_add(1, Relaxed)).filter(|index| *index < count)
                {
                    work(index);
                }
            });
        }
    });
}

/// Whether the outcome is what was expected. How much of a message cleanup has been sent when it is given up is a
/// matter of buffers, and cleanup throws it away: it must be the beginning of what is expected.
pub fn agree(expected: &Outcome, outcome: &Outcome) -> bool {
    let mut expected = expected.clone();
    if expected[QUEUE].last().is_some_and(|last| last == "<eof>") {
        let sent = outcome[QUEUE].len().saturating_sub(1);
        expected[QUEUE].pop();
        expected[QUEUE].truncate(sent);
        expected[QUEUE].push("<eof>".into());
    }
    expected == *outcome
}

/// Both outcomes, line against line: `-` was expected and did not come, `+` came.
pub fn difference(expected: &Outcome, outcome: &Outcome) -> String {
    let mut report = String::new();
    for (section, name) in SECTIONS.iter().enumerate() {
        let (expected, came) = (&expected[section], &outcome[section]);
        if expected == came {
            continue;
        }
        let start = expected
            .iter()
            .zip(came)
            .take_while(|(one, other)| one == other)
            .count();
        let end = expected[start..]
            .iter()
            .rev()
            .zip(came[start..].iter().rev());
        let end = end.take_while(|(one, other)| one == other).count();
        for line in expected[..start].iter().rev().take(2).rev() {
            report.push_str(&format!("    {name}: {line}\n"));
        }
        for line in &expected[start..expected.len() - end] {
            report.push_str(&format!("  - {name}: {line}\n"));
        }
        for line in &came[start..came.len() - end] {
            report.push_str(&format!("  + {name}: {line}\n"));
        }
    }
    report
}
