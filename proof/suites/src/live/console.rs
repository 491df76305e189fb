//! Compares the output of `doorbell live` with Linux's own tables, which a guest prints on its
//! console.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use doorbell_oracles::iommu_groups::{self, Function, RequesterId};
use serde_json::{Value, json};

use crate::said::{list, same, text};

/// Prefixes of the names of chips whose interrupts are message-signaled.
const CHIPS: [&str; 4] = ["ITS", "GICv2m", "MSI", "PCI-MSI"];

/// Lines of the guest's console. The prefix of a line states its origin.
#[derive(Debug, Default)]
pub(crate) struct Console {
    /// Output of `doorbell live --json`.
    json: String,
    /// Output of `doorbell live --explain`.
    text: String,
    /// The functions with their IOMMU groups and configuration spaces.
    functions: BTreeMap<RequesterId, Function>,
    /// `/proc/interrupts`.
    interrupts: Vec<String>,
    /// Exit status of `doorbell live --json`.
    status: Option<u8>,
    /// Exit status and output of `doorbell live --explain --json` after each step.
    steps: Vec<String>,
    /// Last line of the console.
    pub(crate) last: String,
}

/// Expected results of `doorbell live`, given the faults that were planted in a guest.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expected {
    /// Functions with a fault, each with its obstacle as JSON.
    pub(crate) faults: &'static [(&'static str, &'static str)],
    /// Functions that Linux treats differently from what firmware states.
    pub(crate) differences: &'static [&'static str],
    /// Line that the explanation must contain.
    pub(crate) line: &'static str,
    /// `true` if no message of any function arrives.
    pub(crate) silent: bool,
}

/// Change of a running guest, and what the command must then state of a function.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    /// Shell commands that change the guest.
    pub(crate) commands: &'static str,
    /// Function that the command must explain.
    pub(crate) function: &'static str,
    /// Mode of the function's interrupts, obstacle, and exit status, as JSON; or the command's
    /// error and exit status.
    pub(crate) expected: &'static str,
}

impl Console {
    /// Adds a line.
    pub(crate) fn line(&mut self, line: &str) {
        line.trim_end().clone_into(&mut self.last);
        let Some((origin, rest)) = self.last.split_once(": ") else { return };
        match origin {
            "json" => self.json.push_str(rest),
            "text" => self.text.extend([rest, "\n"]),
            "pci" => self.functions.extend(Function::parse(rest)),
            "irqs" => self.interrupts.push(rest.to_owned()),
            "step" => self.steps.push(rest.to_owned()),
            "status" => self.status = rest.parse().ok(),
            _ => {}
        }
    }

    /// Compares the command's output with Linux's interrupts, with the DeviceIDs that Linux maps at
    /// an ITS, and with the expected results.
    ///
    /// # Errors
    /// Fails if the command's output differs from any of these, or if the guest has not printed
    /// everything.
    pub(crate) fn judge(&self, mapped: Option<&BTreeSet<u64>>, expected: &Expected) -> Result<()> {
        let said: Value = serde_json::from_str(&self.json)
            .with_context(|| format!("the last line is `{}`", self.last))?;
        let devices = list(&said, "devices")?;
        let named = devices.iter().filter(|device| device["fault"] == true);
        let named = named.map(|one| (text(&one["id"]), one["explanation"]["obstacle"].clone()));
        let planted = expected.faults.iter().map(|(id, obstacle)| {
            let obstacle: Value = serde_json::from_str(obstacle).context("an obstacle in JSON")?;
            Ok((*id, obstacle))
        });
        same("faults", &named.collect::<Vec<_>>(), &planted.collect::<Result<Vec<_>>>()?)?;
        let differ = devices.iter().filter(|one| one["differences"] != json!([]));
        let differ: Vec<_> = differ.map(|one| text(&one["id"])).collect();
        same("differences", &differ, &expected.differences)?;
        same("silence", &said["silent"], &expected.silent)?;
        let is_stated = expected.faults.is_empty() && expected.differences.is_empty();
        let is_sound = is_stated && !expected.silent;
        same("exit status", &self.status, &Some(u8::from(!is_sound)))?;
        same("problems", &said["problems"], &[(); 0])?;
        let senders = devices.iter().filter(|one| is_message(&one["linux"]["mode"]));
        let senders: Vec<_> = senders.collect();
        self.compare_interrupts(&senders)?;
        if let Some(mapped) = mapped {
            same("DeviceIDs that Linux maps", &device_ids(&senders), mapped)?;
        }
        ensure!(
            self.text.lines().any(|line| line == expected.line),
            "the explanation has no line `{}`:\n{}",
            expected.line,
            self.text
        );
        Ok(())
    }

    /// Compares Linux's IOMMU groups with ours. Returns the number of groups.
    ///
    /// # Errors
    /// Fails if the functions are divided differently, or if the guest has not printed everything.
    pub(crate) fn judge_groups(&self) -> Result<usize> {
        let said: Value = serde_json::from_str(&self.json)?;
        let devices = list(&said, "devices")?;
        same("number of functions", &self.functions.len(), &devices.len())?;
        let requester = |one: &Value| {
            let id = one["firmware"]["requester"].as_u64().context("a requester")?;
            anyhow::Ok(RequesterId::new(u32::try_from(id)?))
        };
        let aliases = self.functions.keys().zip(devices);
        let aliases = aliases.map(|(id, device)| Ok((*id, requester(device)?)));
        let (ours, theirs) = iommu_groups::both(&self.functions, &aliases.collect::<Result<_>>()?)?;
        same("groups of requesters", &ours, &theirs)?;
        Ok(ours.len())
    }

    /// Compares the command's output after each step with what it must state.
    ///
    /// # Errors
    /// Fails if the command states something else, or if the guest has not printed everything.
    pub(crate) fn judge_steps(&self, steps: &[Step]) -> Result<()> {
        same("number of steps", &self.steps.len(), &steps.len())?;
        for (number, (line, step)) in self.steps.iter().zip(steps).enumerate() {
            let (status, said) = line.split_once(' ').unwrap_or((line, ""));
            let status: u8 = status.parse()?;
            // An error is no JSON.
            let said = serde_json::from_str::<Value>(said).map_or_else(
                |_| json!([said, status]),
                |said| json!([said["linux"]["mode"], said["explanation"]["obstacle"], status]),
            );
            let what = format!("explanation of {} after step {number}", step.function);
            let expected: Value = serde_json::from_str(step.expected)?;
            same(&what, &said, &expected)?;
        }
        Ok(())
    }

    /// Compares the interrupts of functions that send messages with those in Linux's table.
    fn compare_interrupts(&self, senders: &[&Value]) -> Result<()> {
        let mut ours = BTreeSet::new();
        for sender in senders {
            // Linux's table omits interrupts without a handler.
            let interrupts = list(&sender["linux"], "interrupts")?.iter();
            for one in interrupts.filter(|one| one["handlers"] != json!([])) {
                ours.insert((one["irq"].as_u64(), text(&one["handlers"][0]).to_owned()));
            }
        }
        let theirs: BTreeSet<_> =
            self.interrupts.iter().filter_map(|row| message_row(row)).collect();
        same("interrupts", &ours, &theirs)
    }
}

fn is_message(mode: &Value) -> bool {
    ["msi", "msix"].contains(&text(mode))
}

/// Returns the DeviceIDs that firmware states or, if it states none, that Linux assumes.
fn device_ids(senders: &[&Value]) -> BTreeSet<u64> {
    let id = |sender: &&Value| {
        sender["firmware"]["device_id"].as_u64().or(sender["linux"]["assumed_device_id"].as_u64())
    };
    senders.iter().filter_map(id).collect()
}

/// Returns the number of a message-signaled interrupt and its first handler, from a row of
/// `/proc/interrupts` such as `17:  1  0  ITS-MSI 16384 Edge  PCIe PME, aerdrv`.
fn message_row(row: &str) -> Option<(Option<u64>, String)> {
    let (number, rest) = row.split_once(':')?;
    let chip = rest.split_whitespace().find(|word| word.parse::<u64>().is_err())?;
    CHIPS.iter().any(|name| chip.starts_with(name)).then_some(())?;
    let (_, handlers) = rest.split_once(" Edge ")?;
    let first = handlers.split(',').next()?.trim().to_owned();
    Some((Some(number.trim().parse().ok()?), first))
}
