//! Runs Debian kernels as guests: one with a disk and a network under load, and two at the same
//! time.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use doorbell_harness::apt::Suite;
use doorbell_harness::qemu::Version;
use doorbell_harness::qemu::cost::{self, InstructionSplit};
use doorbell_harness::suite::Case;

use crate::board::Controller::{self, Mbi, V2m};
use crate::board::{self, Board, COUNTED, GICV3, GICV4, LIMIT, MAX, MEMORY, MOVES, Machine};
use crate::debian::{self, COMMAND_LINE, Guest};
use crate::output::Output;
use crate::report::{Reports, TYPED, all_listen};
use crate::traffic::{self, Expected, Load, OWN_READS, Reads};
use crate::{built, direct};

/// Kernel parameters. The log has no timestamps, so its lines are exactly what the guest writes,
/// and no unsolicited packets arrive.
pub(crate) const WORDS: &str = "printk.time=0 ipv6.disable=1 suspend.pm_test_delay=1";
/// A device with MSI-X, for a guest without an MSI controller.
const DEVICE: &str = "virtio-rng-pci";
/// A device with MSI-X whose DMA passes through an SMMU.
const CONFINED_DEVICE: &str = "virtio-rng-pci,iommu_platform=on,disable-legacy=on";
/// A machine with a single guest.
#[derive(Clone, Copy)]
pub(crate) struct LinuxCase {
    pub(crate) version: Version,
    /// The suite whose kernel the guest runs.
    pub(crate) kernel: Suite,
    /// `true` if the guest runs the suite's real-time kernel instead.
    pub(crate) real_time: bool,
    pub(crate) vcpus: u8,
    pub(crate) cpus: u8,
    pub(crate) controller: Controller,
    pub(crate) machine: Machine,
    /// Interval between moves, in milliseconds.
    pub(crate) move_every: Option<u32>,
    /// Minimum number of reads of the disk, if the guest has an MSI controller.
    pub(crate) reads: u64,
    /// `true` if each device is below a root port of its own.
    pub(crate) below_ports: bool,
    /// `true` if the guest owns an SMMU in front of its devices.
    pub(crate) behind_smmu: bool,
    /// `true` if the devices' messages are injected directly.
    pub(crate) direct: bool,
    /// Parameters of the first module.
    pub(crate) parameters: &'static str,
    /// More words on the kernel's command line, for the guest's program.
    pub(crate) words: &'static str,
}

/// Returns QEMU's names of devices, on the root bus or each below a port of its own.
fn placed(devices: &[&str], below_ports: bool) -> Vec<String> {
    let below = |(port, device): (usize, &&str)| {
        [format!("pcie-root-port,id=port{port},chassis={port}"), format!("{device},bus=port{port}")]
    };
    if below_ports {
        return devices.iter().enumerate().flat_map(below).collect();
    }
    devices.iter().map(ToString::to_string).collect()
}

/// Returns the end of the name of a case.
const fn place(below_ports: bool) -> &'static str {
    if below_ports { ", below root ports" } else { "" }
}

/// A guest of two vCPUs, with the kernel of Debian's stable release and an ITS.
pub(crate) const STABLE: LinuxCase = LinuxCase {
    version: Version::Stable,
    kernel: Suite::Stable,
    real_time: false,
    vcpus: 2,
    cpus: 2,
    controller: Controller::Its,
    machine: GICV3,
    move_every: None,
    reads: READS,
    below_ports: false,
    behind_smmu: false,
    direct: false,
    parameters: "",
    words: "",
};
/// The same with Debian's backports, and with its newest kernel, on the newer QEMU.
pub(crate) const BACKPORTS: LinuxCase =
    LinuxCase { version: Version::Backports, kernel: Suite::Backports, ..STABLE };
pub(crate) const UNSTABLE: LinuxCase = LinuxCase { kernel: Suite::Unstable, ..BACKPORTS };
/// A guest whose devices' messages are injected directly.
const DIRECT: LinuxCase = LinuxCase { machine: GICV4, direct: true, ..BACKPORTS };
/// A guest with the newest kernel that is moved.
const MOVED: LinuxCase = LinuxCase { reads: FEW_READS, move_every: Some(50), ..UNSTABLE };
/// A guest with the real-time kernel.
pub(crate) const REAL_TIME: LinuxCase = LinuxCase { real_time: true, reads: FEW_READS, ..STABLE };

/// The word that lets the suite count instructions of a guest.
const WATCHED: &str = "watched";
/// The word that makes Linux use INTx instead of MSIs. On several CPUs, QEMU's disk may keep INTx
/// asserted forever, because its shadow doorbells overtake the others.
const NO_MSI: &str = "pci=nomsi";
/// The word that makes a guest's program suspend the guest.
pub(crate) const SUSPENDS: &str = "suspends";
/// The word that makes a guest's program suspend the guest to RAM.
pub(crate) const SLEEPS: &str = "sleeps";

/// Number of reads: enough to keep the load running while each vector moves a few times.
pub(crate) const READS: u64 = 1000;
/// Number of reads for guests with many more vCPUs than CPUs.
pub(crate) const FEW_READS: u64 = 400;
/// Number of reads, and thus of interrupts, of the long cases.
pub(crate) const MANY_READS: u64 = 100_000;

/// Time limit of two guests, whose newer kernels start slowly on a busy machine.
pub(crate) const LIMIT_OF_TWO: Duration = LIMIT.saturating_mul(3);

/// The cases of every run: each controller, on up to 4 vCPUs.
const CASES: &[LinuxCase] = &[
    LinuxCase { vcpus: 4, cpus: 4, machine: GICV4, ..STABLE },
    LinuxCase { vcpus: 4, move_every: Some(50), ..STABLE },
    LinuxCase { reads: FEW_READS, below_ports: true, ..STABLE },
    LinuxCase { controller: Mbi, ..STABLE },
    LinuxCase { controller: V2m, ..STABLE },
    LinuxCase { vcpus: 1, cpus: 1, words: NO_MSI, move_every: Some(50), ..STABLE },
    LinuxCase { vcpus: 1, cpus: 1, controller: Controller::None, machine: MAX, ..STABLE },
    LinuxCase { machine: MAX, ..BACKPORTS },
    MOVED,
    DIRECT,
    LinuxCase { vcpus: 4, ..DIRECT },
    LinuxCase { move_every: Some(50), ..DIRECT },
];
/// Cases of the long suite: more interrupts, and each kernel on 1, 2 and 8 vCPUs with MBI, and on 1
/// and 8 with an ITS.
const LONG_CASES: &[LinuxCase] = &[
    LinuxCase { vcpus: 1, cpus: 1, ..STABLE },
    LinuxCase { reads: MANY_READS, ..STABLE },
    LinuxCase { vcpus: 8, reads: FEW_READS, ..STABLE },
    LinuxCase { vcpus: 1, cpus: 1, controller: Mbi, ..STABLE },
    LinuxCase { vcpus: 8, controller: Mbi, reads: FEW_READS, ..STABLE },
    LinuxCase { controller: Mbi, reads: MANY_READS, ..BACKPORTS },
    LinuxCase { vcpus: 1, cpus: 1, ..BACKPORTS },
    LinuxCase { vcpus: 1, cpus: 1, controller: Mbi, ..BACKPORTS },
    LinuxCase { vcpus: 8, reads: FEW_READS, ..BACKPORTS },
    LinuxCase { vcpus: 8, controller: Mbi, reads: FEW_READS, ..BACKPORTS },
    LinuxCase { vcpus: 1, cpus: 1, ..MOVED },
    LinuxCase { vcpus: 4, cpus: 4, ..MOVED },
    LinuxCase { vcpus: 8, ..MOVED },
    LinuxCase { vcpus: 4, cpus: 4, machine: MAX, direct: true, ..UNSTABLE },
    LinuxCase { vcpus: 8, machine: GICV4, direct: true, reads: FEW_READS, ..STABLE },
    LinuxCase { reads: FEW_READS, words: SUSPENDS, ..DIRECT },
    LinuxCase { vcpus: 4, reads: MANY_READS, move_every: Some(10), ..DIRECT },
    LinuxCase { vcpus: 4, move_every: Some(50), ..REAL_TIME },
    LinuxCase { controller: Mbi, reads: READS, ..REAL_TIME },
    LinuxCase { words: SUSPENDS, ..REAL_TIME },
];

/// Lists the ordinary cases.
pub(crate) fn cases() -> Vec<Case> {
    listed(CASES).chain(confined_cases()).collect()
}

/// Lists the cases that take longer.
pub(crate) fn long_cases() -> Vec<Case> {
    let name = "two confined guests of 2 vCPUs on 2 CPUs, injected directly";
    let direct = built::case(name, LIMIT_OF_TWO, || {
        let (guest, log) = (debian::guest(Suite::Stable)?, built::log_of(name)?);
        let on = (Version::Backports, false);
        two_guests(on, (Controller::Its, Some(&log)), guest)?;
        direct::judge_linux(&log, &(1..=u64::MAX)).map(|_| ())
    });
    listed(LONG_CASES).chain(confined_cases()).chain([direct]).collect()
}

/// Lists the cases with two guests that run the stable kernel. The long suite runs them on each
/// QEMU version.
fn confined_cases() -> Vec<Case> {
    Version::in_turn(|version| {
        [false, true].map(|below_ports| {
            let (guests, place) = ("two confined guests of 2 vCPUs on 2 CPUs", place(below_ports));
            let name = format!("{guests} of {version:?}'s QEMU{place}");
            built::case(name, LIMIT_OF_TWO, move || {
                let guest = debian::guest(Suite::Stable)?;
                two_guests((version, below_ports), (Controller::Its, None), guest)
            })
        })
    })
}

fn listed(cases: &'static [LinuxCase]) -> impl Iterator<Item = Case> {
    cases.iter().map(|case| {
        built::case(case.name(), case.limit(), move || {
            case.judge(case.guest()?, &case.name()).map(drop)
        })
    })
}

impl LinuxCase {
    pub(crate) fn name(&self) -> String {
        let Self { kernel, vcpus, cpus, controller, machine, parameters, words, .. } = self;
        let moved = if self.move_every.is_some() { ", moved" } else { "" };
        let flavor = if self.real_time { "real-time " } else { "" };
        let how = match (self.behind_smmu, self.direct) {
            (true, _) => ", behind an SMMU",
            (_, true) if !moved.is_empty() => ", injected directly, moved",
            (_, true) => ", injected directly",
            _ => moved,
        };
        let more = [parameters, words].map(|it| if it.is_empty() { "" } else { ", " });
        format!(
            "{kernel:?}'s {flavor}kernel on {vcpus} vCPUs of {cpus} CPUs with {controller:?}{how} \
             on {machine}{}{}{parameters}{}{words}",
            place(self.below_ports),
            more[0],
            more[1]
        )
    }

    /// Returns `true` if a redistributor may not write what is pending to its table: if LPIs stay
    /// enabled, or if it loses power in a suspend.
    pub(crate) fn loses_table(&self) -> bool {
        self.controller == Controller::PermanentLpi || self.words == SLEEPS
    }

    /// Returns the guest, without more modules.
    pub(crate) fn guest(&self) -> Result<&'static Guest> {
        if self.real_time { debian::real_time() } else { debian::guest(self.kernel) }
    }

    /// Returns the time limit of a run, which must suffice on a busy machine.
    pub(crate) fn limit(&self) -> Duration {
        2 * LIMIT + Duration::from_millis(20 * self.reads)
    }

    /// Returns the command that runs a guest, and makes QEMU log its devices' messages.
    pub(crate) fn command(&self, guest: &Guest, log: &Path) -> Result<Command> {
        let Self { version, vcpus, cpus, controller, machine, move_every, .. } = *self;
        let has_messages = controller != Controller::None;
        let devices = match (has_messages, self.behind_smmu) {
            (false, _) => &[DEVICE],
            (true, false) => &traffic::DEVICES[..],
            (true, true) => &traffic::TRANSLATED_DEVICES,
        };
        let devices = placed(devices, self.below_ports);
        let mut devices: Vec<_> = devices.iter().map(String::as_str).collect();
        if controller.is_direct() {
            devices.extend(traffic::MSI_DEVICES);
        }
        let board = Board {
            machine,
            vcpus,
            cpus,
            controller,
            devices: &devices,
            trusted: true,
            guest_smmu: self.behind_smmu,
            direct: self.direct,
            move_every,
            stats: has_messages && self.words != WATCHED,
            ..Board::plain(version, MEMORY)
        };
        let mut qemu = board.command(&[guest.files(&self.words_for_linux())])?;
        if has_messages {
            traffic::logged(&mut qemu, log);
        }
        if self.direct {
            direct::logged(&mut qemu, log);
        }
        Ok(qemu)
    }

    /// Returns the kernel's command line.
    fn words_for_linux(&self) -> String {
        let Self { controller, reads, parameters, words, .. } = *self;
        let option = |name, value: &str| format!(" {name}={value}");
        let wanted = (controller != Controller::None).then(|| option("reads", &reads.to_string()));
        let parameters = (!parameters.is_empty()).then(|| option("parameters", parameters));
        let options: String = wanted.into_iter().chain(parameters).collect();
        format!("{COMMAND_LINE} {WORDS}{options} {words}")
    }

    /// Counts the instructions of an interrupt of the disk, from the exception that the hypervisor
    /// takes.
    pub(crate) fn measure(&self, guest: &Guest, name: &str) -> Result<InstructionSplit> {
        let log = built::log_of(name)?;
        let mut qemu = Self { words: WATCHED, ..*self }.command(guest, &log)?;
        qemu.args(COUNTED);
        let folder = log.with_extension("cost");
        fs::create_dir_all(&folder)?;
        cost::measure(qemu, &folder, |_| ())
    }

    /// Runs a guest and checks its report. The name must differ from those of concurrent runs.
    pub(crate) fn judge(&self, guest: &Guest, name: &str) -> Result<Output> {
        let Self { vcpus, controller, .. } = *self;
        let log = &built::log_of(name)?;
        // A suspend discards the kernel's own read.
        let is_suspended = [SUSPENDS, SLEEPS].contains(&self.words);
        let discarded = u64::from(is_suspended) * OWN_READS;
        let reads = Reads { fewest: self.reads, discarded, log };
        let has_messages = controller != Controller::None;
        let load = if has_messages { Load::Traffic(reads) } else { Load::None };
        let moves = self.move_every.map_or(0, |_| MOVES);
        let (cpus, has_lines) = (vcpus.into(), self.words == NO_MSI);
        let expected = Expected { cpus, controller, load, has_lines, moves };
        let reports = listen(self.command(guest, log)?, self.limit(), 1, |_| ())?;
        reports.judge(&expected)?;
        if self.direct {
            let doorbells = match (vcpus > self.cpus, self.move_every) {
                // A message that arrives during a move rings the doorbell.
                (_, Some(_)) => 0..=u64::MAX,
                (true, None) => 1..=u64::MAX,
                (false, None) => 0..=0,
            };
            let recalled = direct::judge_linux(log, &doorbells)?;
            let must_recall = self.move_every.is_some() && vcpus > self.cpus;
            ensure!(!must_recall || recalled > 0, "no pending event was taken back");
        }
        if has_lines {
            self.judge_own_gic(guest, name, (&expected, &reports))?;
        }
        Ok(reports.output)
    }

    /// Runs the kernel on QEMU's own GIC, where the same counts must hold. The kernel must find the
    /// same windows for PCI there, and place the devices' memory at the same addresses.
    fn judge_own_gic(
        &self,
        guest: &Guest,
        name: &str,
        (expected, hypervisors): (&Expected<'_>, &Reports),
    ) -> Result<()> {
        let name = format!("{name} of QEMU's own GIC");
        let log = &built::log_of(&name)?;
        let mut qemu = board::without_hypervisor(self.version, self.cpus, MEMORY)?;
        qemu.arg("-kernel").arg(&guest.kernel).arg("-initrd").arg(&guest.initrd);
        qemu.args(["-append", &self.words_for_linux()]);
        qemu.args(traffic::DEVICES.iter().flat_map(|device| ["-device", device]));
        traffic::logged(&mut qemu, log);
        let reports = listen(qemu, self.limit(), 1, |_| ())?;
        let (found, own) = (hypervisors.pci_memory(), reports.pci_memory());
        ensure!(found == own && !own.is_empty(), "PCI's memory: {found:#?}, not {own:#?}");
        reports.judge_traffic(expected, Reads { fewest: self.reads, discarded: 0, log }, None)
    }
}

/// Runs two guests at the same time, each with a device that an SMMU confines. The first guest
/// continues after the second has ended. If there is a log, messages are injected directly.
pub(crate) fn two_guests(
    (version, below_ports): (Version, bool),
    (controller, log): (Controller, Option<&Path>),
    guest: &Guest,
) -> Result<()> {
    let devices = placed(&[CONFINED_DEVICE; 2], below_ports);
    let board = Board {
        machine: if log.is_some() { GICV4 } else { GICV3 },
        direct: log.is_some(),
        vcpus: 2,
        cpus: 2,
        controller,
        devices: &devices.iter().map(String::as_str).collect::<Vec<_>>(),
        ..Board::plain(version, MEMORY)
    };
    let alone = format!("{COMMAND_LINE} {WORDS}");
    let waiting = format!("{alone} waits");
    let mut qemu = board.command(&[guest.files(&waiting), guest.files(&alone)])?;
    if let Some(log) = log {
        direct::logged(&mut qemu, log);
    }
    let load = Load::Random { reads: debian::READS };
    let expected = Expected { cpus: 2, controller, load, ..Expected::default() };
    listen(qemu, LIMIT_OF_TWO, 2, |_| ())?.judge(&expected)
}

/// Runs guests, sends them text when they request it, and calls `see` with each line of output.
/// Returns their reports.
pub(crate) fn listen(
    mut qemu: Command,
    limit: Duration,
    guests: usize,
    mut see: impl FnMut(&str),
) -> Result<Reports> {
    let mut since = 0;
    let output = Output::typed(&mut qemu, limit, "", |line, output| {
        see(line);
        if !all_listen(output, guests, since) {
            return String::new();
        }
        since = output.facts.len();
        format!("{TYPED}\n")
    })?;
    Ok(Reports::of(output, guests))
}
