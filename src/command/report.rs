//! Writes the findings of `--check`: place, text, and remedy.
//!
//! What is found is left to the other files of `command`.

use std::collections::BTreeSet;

use crate::config::{self, Config};
use crate::exit::{EX_CONFIG, EX_OK};

use super::help::print;

/// Writes each finding at once, because the rehearsal can end the process.
#[derive(Default)]
pub struct Report {
    errors: u32,
    warnings: u32,
    /// The findings already written. One mistake can concern several parameters.
    said: BTreeSet<String>,
    /// `FILE, line N` of master.cf, while the findings are about its options. Findings that do not depend on them are
    /// written before.
    service: Option<String>,
}

/// `FILE, line N`, or the option, that sets the parameter; the file, if no line sets it.
pub fn place(config: &Config, name: &str) -> String {
    config.place_text(name).unwrap_or_else(|| config.main_cf())
}

/// The text of a log line for people: a file that a list names has no `non-existent:` before it.
pub fn for_people(text: &str) -> String {
    text.replace("non-existent:/", "/")
}

impl Report {
    pub fn line(&mut self, text: &str) {
        print(&format!("{text}\n"));
    }

    /// Makes the following findings those of a service of master.cf, or of main.cf again.
    pub fn set_service(&mut self, place: Option<&str>) {
        self.service = place.map(str::to_owned);
    }

    fn finding(&mut self, level: &str, text: &str, advice: Option<&str>) -> u32 {
        let text = match &self.service {
            Some(place) => text.replacen("option -o", place, 1),
            None => text.to_owned(),
        };
        let is_new = self.said.insert(format!("{level}: {text}"));
        if self.service.is_some() && !is_new {
            return 0;
        }
        self.line(&format!("{level}: {text}"));
        if let Some(advice) = advice {
            self.line(&format!("    {advice}"));
        }
        1
    }

    /// Reports an error: qmqpd does not serve, or does not serve some clients.
    pub fn error(&mut self, text: &str, advice: Option<&str>) {
        self.errors += self.finding("error", text, advice);
    }

    /// Reports a likely mistake.
    pub fn warning(&mut self, text: &str, advice: Option<&str>) {
        self.warnings += self.finding("warning", text, advice);
    }

    /// Reports a check that could not be made.
    pub fn note(&mut self, text: &str) {
        self.line(&format!("note: {text}"));
    }

    /// Reports an error in the parameter `name`.
    pub fn config_error(
        &mut self,
        config: Option<&Config>,
        name: &str,
        error: &config::Error,
        advice: Option<&str>,
    ) {
        if self.service.is_some() || self.said.insert(error.to_string()) {
            self.error(&Report::located(config, name, error), advice);
        }
    }

    /// The text of an error, after the place that sets its parameter.
    pub fn located(config: Option<&Config>, name: &str, error: &config::Error) -> String {
        let mut text = error.to_string();
        for warning in error.warnings() {
            text.push_str(": ");
            text.push_str(warning);
        }
        let Some(config) = config else {
            return text;
        };
        let file = format!("file {}: ", config.main_cf());
        let text = text.strip_prefix(&file).unwrap_or(&text);
        format!("{}: {text}", place(config, name))
    }

    /// Writes the number of findings. Returns the exit status, 78 if there were errors.
    pub fn conclude(&mut self) -> u8 {
        let count = |n: u32, what: &str| match n {
            0 => format!("no {what}s"),
            1 => format!("1 {what}"),
            n => format!("{n} {what}s"),
        };
        let (errors, warnings) = (count(self.errors, "error"), count(self.warnings, "warning"));
        self.line(&format!("{errors}, {warnings}"));
        if self.errors == 0 { EX_OK } else { EX_CONFIG }
    }
}
