//! Parses and checks the reports of Alioth's guest, which is booted once with Alioth's own routes
//! and once with Doorbell's.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::{Context, Result, ensure};

/// `KVM_SET_GSI_ROUTING` (Linux's include/uapi/linux/kvm.h).
const SET_GSI_ROUTING: u64 = 0x4008_ae6a;
/// `KVM_IRQFD`.
const IRQFD: u64 = 0x4020_ae76;
/// Number of Alioth's eventfds that have a route: its table has 256 entries, of which 24 are used
/// by pins.
const STOCK_ROUTES: u64 = 232;
/// Number of other route changes: the guest moves a few interrupts, and opens a vector of a device
/// without a route.
const OTHER_TABLES: u64 = 16;
/// Maximum number of times that the routing table is set for all vectors of the guest, with
/// Doorbell's routes. Five are typical.
const ROUTED_TABLES: u64 = 12;
/// Number of network devices, each with a queue that signals interrupts.
const NICS: u64 = 2;
/// Number of eventfds that the guest's devices need: one for each queue with data.
const QUEUES: u64 = 2 * (117 + 3);

/// The boots in order, identified by name.
#[derive(Debug, Default)]
pub(crate) struct Report {
    boots: Vec<AliothBoot>,
    last: String,
}

/// The results of one boot.
#[derive(Debug, Default)]
pub(super) struct AliothBoot {
    name: String,
    /// Number of the guest's message-signaled interrupts.
    lines: u64,
    /// The results of each network device.
    nics: BTreeMap<String, Nic>,
    /// Number of system calls of the monitor's machine, by command.
    ioctls: BTreeMap<u64, u64>,
    /// Number of translated messages, and of failed invalidations.
    translated: Option<(u64, u64)>,
    ended: bool,
}

/// A network device's report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Nic {
    /// Number of answers that the guest received.
    answers: u64,
    /// Number of interrupts of all the device's queues.
    interrupts: u64,
}

impl Report {
    /// Processes a line of the console.
    pub(crate) fn line(&mut self, line: &str) {
        let line = line.trim_end();
        if let Some(name) = line.strip_prefix("boot: ") {
            self.boots.push(AliothBoot { name: name.into(), ..AliothBoot::default() });
        }
        if let Some(boot) = self.boots.last_mut() {
            // Ignore malformed lines.
            let _ = boot.line(line);
        }
        self.last = line.into();
    }

    /// Returns `true` if the boot with Doorbell's routes has begun.
    pub(crate) fn has_our_routes(&self) -> bool {
        self.boot("routed").is_ok()
    }

    /// Returns the last line.
    pub(crate) fn last(&self) -> &str {
        &self.last
    }

    /// Returns the boot of this name.
    ///
    /// # Errors
    /// Fails if the report has no such boot.
    pub(super) fn boot(&self, name: &str) -> Result<&AliothBoot> {
        let boot = self.boots.iter().find(|boot| boot.name == name);
        boot.with_context(|| {
            format!("the report has no such boot; the last line is `{}`", self.last)
        })
    }
}

impl AliothBoot {
    fn line(&mut self, line: &str) -> Option<()> {
        if let Some(lines) = line.strip_prefix("guest: lines ") {
            self.lines = lines.parse().ok()?;
        } else if let Some(nic) = line.strip_prefix("guest: nic ") {
            let words: Vec<_> = nic.split(' ').collect();
            let [name, answers, "answers", interrupts, "interrupts"] = words[..] else {
                return None;
            };
            let nic = Nic { answers: answers.parse().ok()?, interrupts: interrupts.parse().ok()? };
            self.nics.insert(name.into(), nic);
        } else if let Some(row) = line.strip_prefix("host: ioctl { cmd: ") {
            let (command, count) = row.split_once("} hitcount:")?;
            self.ioctls.insert(command.trim().parse().ok()?, count.trim().parse().ok()?);
        } else if let Some(row) = line.strip_prefix("host: translated ") {
            let (messages, failed) = row.split_once(", ")?;
            let failed = failed.strip_suffix(" invalidations failed")?;
            self.translated = Some((messages.parse().ok()?, failed.parse().ok()?));
        } else if line == "host: ended 0" {
            self.ended = true;
        }
        Some(())
    }

    fn nic(&self, name: &str) -> Result<Nic> {
        self.nics
            .get(name)
            .copied()
            .with_context(|| format!("the report does not mention NIC {name}"))
    }

    fn ioctls(&self, command: u64) -> u64 {
        self.ioctls.get(&command).copied().unwrap_or(0)
    }

    fn judge(&self) -> Result<()> {
        ensure!(self.ended, "the monitor failed");
        ensure!(self.lines >= QUEUES, "the guest has {} lines", self.lines);
        ensure!(self.nic("0")?.is_alive(), "NIC 0 is dead: {:?}", self.nics);
        Ok(())
    }

    /// Checks the boot with Alioth's own routes.
    ///
    /// # Errors
    /// Fails if the result is not as expected: the device whose interrupts have no route must not
    /// work.
    pub(super) fn judge_stock(&self) -> Result<()> {
        self.judge()?;
        let silent = Nic { answers: 0, interrupts: 0 };
        ensure!(self.nic("1")? == silent, "NIC 1 is not dead: {:?}", self.nics);
        let tables = self.ioctls(SET_GSI_ROUTING);
        let expected = STOCK_ROUTES..=STOCK_ROUTES + OTHER_TABLES;
        ensure!(expected.contains(&tables), "{tables} tables, not {expected:?}");
        Ok(())
    }

    /// Checks the boot with Doorbell's routes.
    ///
    /// # Errors
    /// Fails if the result is not as expected: both devices must work, and the routing table must
    /// be set only a few times.
    pub(super) fn judge_routed(&self) -> Result<()> {
        self.judge()?;
        ensure!(self.nic("1")?.is_alive(), "NIC 1 is dead: {:?}", self.nics);
        let is_translated = matches!(self.translated, Some((1.., 0)));
        ensure!(is_translated, "messages, and invalidations that failed: {:?}", self.translated);
        let tables = self.ioctls(SET_GSI_ROUTING);
        let expected = 1..=ROUTED_TABLES;
        ensure!(expected.contains(&tables), "{tables} tables, not {expected:?}");
        // Only the eventfds of queues that signal are bound, and these are unbound at the end.
        let (binds, expected) = (self.ioctls(IRQFD), 2 * NICS..QUEUES);
        ensure!(expected.contains(&binds), "{binds} binds and unbinds, not {expected:?}");
        Ok(())
    }
}

impl Nic {
    fn is_alive(self) -> bool {
        self.answers > 0 && self.interrupts > 0
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for boot in &self.boots {
            write!(f, "{}: {} lines", boot.name, boot.lines)?;
            for (name, Nic { answers, interrupts }) in &boot.nics {
                write!(f, ", NIC {name}: {answers} answers and {interrupts} interrupts")?;
            }
            let (tables, binds) = (boot.ioctls(SET_GSI_ROUTING), boot.ioctls(IRQFD));
            write!(f, ", {tables} KVM_SET_GSI_ROUTING, {binds} KVM_IRQFD")?;
            let translated = boot.translated.map(|(messages, _)| messages);
            writeln!(f, ", {} translations", translated.unwrap_or(0))?;
        }
        Ok(())
    }
}
