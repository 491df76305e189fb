//! The ways in which a driver's mistakes are named.

use anyhow::{Context, Result, bail, ensure};
use doorbell_harness::qemu::HumanMonitor;

use crate::board::LIMIT;
use crate::built;
use crate::debian::Guest;
use crate::linux::{self, LinuxCase};

/// The place where a mistake of a driver is named.
#[derive(Clone, Copy, Debug)]
pub(super) enum NamedBy {
    /// Lines that the hypervisor or the guest prints, each of which contains these texts.
    Lines(&'static [&'static [&'static str]]),
    /// An error of the judge of the guest's traffic, which contains this text.
    Judge(&'static str),
}

/// The name of a message that is 0.
pub(super) const NO_INTERRUPT: NamedBy =
    NamedBy::Lines(&[&["GICR_SETLPIR = 0x0", "no such interrupt"]]);

impl NamedBy {
    /// Runs a guest with a mistake, and checks that the mistake is named.
    pub(super) fn check(self, case: LinuxCase, guest: &Guest, name: &str) -> Result<()> {
        match self {
            Self::Lines(lines) => says(case, guest, name, lines),
            Self::Judge(text) => refuses(case, guest, name, text),
        }
    }
}

/// Checks that the hypervisor or the guest prints a line with each of these groups of texts.
pub(super) fn says(case: LinuxCase, guest: &Guest, name: &str, wanted: &[&[&str]]) -> Result<()> {
    let mut qemu = case.command(guest, &built::log_of(name)?)?;
    let monitor = HumanMonitor::offered_by(&mut qemu);
    let (mut named, mut ended, mut said) = (vec![None; wanted.len()], Ok(()), Vec::new());
    let watched = linux::listen(qemu, LIMIT, 1, |line| {
        let is_named = |named: &[Option<String>]| named.iter().all(Option::is_some);
        let was_named = is_named(&named);
        for (named, texts) in named.iter_mut().zip(wanted) {
            if named.is_none() && texts.iter().all(|text| line.contains(text)) {
                *named = Some(line.trim_end().to_owned());
            }
        }
        if !was_named && is_named(&named) {
            ended = monitor.quit();
        }
        if line.starts_with("hypervisor: ") {
            said.push(line.trim_end().to_owned());
        }
    });
    let named: Option<Vec<_>> = named.into_iter().collect();
    let named = named.with_context(|| format!("{wanted:?} is not said, but {said:#?}"))?;
    watched.map(drop)?;
    eprintln!("{}", named.join("\n"));
    ended
}

/// Checks that the judge of the guest's traffic refuses it for the right reason.
fn refuses(case: LinuxCase, guest: &Guest, name: &str, text: &str) -> Result<()> {
    let Err(error) = case.judge(guest, name) else { bail!("the judge found nothing") };
    let error = format!("{error:#}");
    ensure!(error.contains(text), "the judge says: {error}");
    eprintln!("{error}");
    Ok(())
}
