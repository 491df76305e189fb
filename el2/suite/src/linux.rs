//! Runs Debian kernels as guests: one with a disk and a network under load, and two at the same
//! time.

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use doorbell_harness::apt::Suite;
use doorbell_harness::process;
use doorbell_harness::qemu::cost::{self, InstructionSplit};
use doorbell_harness::qemu::{self, Version};
use doorbell_harness::suite;

use crate::board::{Board, COUNTED, LIMIT, MEMORY, MOVES, Record, SURROUNDINGS};
use crate::controller::Controller;
use crate::debian::{self, COMMAND_LINE, Guest};
use crate::files::Files;
use crate::machine::{GICV3, GICV4, MAX, Machine};
use crate::report::{Expected, GuestReports, Load};
use crate::traffic::{OWN_READS, Sent};
use crate::{built, direct, traffic};

/// Kernel parameters. The log has no timestamps, so its lines are exactly what the guest writes,
/// and no unsolicited packets arrive.
pub(crate) const WORDS: &str = "printk.time=0 ipv6.disable=1 suspend.pm_test_delay=1";
/// A device with MSI-X, for a guest without an MSI controller.
const DEVICE: &str = "virtio-rng-pci";
/// A device with MSI-X whose DMA passes through an SMMU.
const CONFINED_DEVICE: &str = "virtio-rng-pci,iommu_platform=on,disable-legacy=on";
/// Text that the guest reads from its UART, which signals it by interrupts.
pub(crate) const TYPED: &str = "by interrupt";

/// A machine with a single guest.
#[derive(Clone, Copy)]
pub(crate) struct Case {
    version: Version,
    /// The suite whose kernel the guest runs.
    pub(crate) kernel: Suite,
    /// `true` if the guest runs the suite's real-time kernel instead.
    real_time: bool,
    vcpus: u8,
    cpus: u8,
    controller: Controller,
    machine: Machine,
    /// Interval between moves, in milliseconds.
    move_every: Option<u32>,
    /// Minimum number of reads of the disk, if the guest has an MSI controller.
    reads: u64,
    place: Place,
    /// `true` if the guest owns an SMMU in front of its devices.
    behind_smmu: bool,
    /// `true` if the devices' messages are injected directly.
    direct: bool,
    /// Parameters of the first module.
    parameters: &'static str,
    /// More words on the kernel's command line.
    words: &'static str,
}

/// The place of the devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// The root bus.
    Root,
    /// Root ports, one for each device.
    Ports,
}

impl Place {
    /// Returns QEMU's names of the devices at this place.
    fn of(self, devices: &[&str]) -> Vec<String> {
        let below = |(port, device): (usize, &&str)| match self {
            Self::Root => vec![(*device).to_owned()],
            Self::Ports => vec![
                format!("pcie-root-port,id=port{port},chassis={port}"),
                format!("{device},bus=port{port}"),
            ],
        };
        devices.iter().enumerate().flat_map(below).collect()
    }

    fn suffix(self) -> &'static str {
        if self == Self::Ports { ", below root ports" } else { "" }
    }
}

impl Case {
    pub(crate) const fn new(
        version: Version,
        vcpus: u8,
        cpus: u8,
        controller: Controller,
        machine: Machine,
    ) -> Self {
        let kernel = match version {
            Version::Stable => Suite::Stable,
            Version::Backports => Suite::Backports,
        };
        Self {
            version,
            kernel,
            real_time: false,
            vcpus,
            cpus,
            controller,
            machine,
            move_every: None,
            reads: READS,
            place: Place::Root,
            behind_smmu: false,
            direct: false,
            parameters: "",
            words: "",
        }
    }

    /// Returns a case that moves a guest with Debian's newest kernel and an ITS, on the newer QEMU.
    const fn newest(vcpus: u8, cpus: u8) -> Self {
        let case = Self::new(Version::Backports, vcpus, cpus, Controller::Its, GICV3);
        case.of_unstable().reading(FEW_READS).moved_every(50)
    }

    /// Returns the case with Debian's newest kernel.
    pub(crate) const fn of_unstable(self) -> Self {
        Self { kernel: Suite::Unstable, ..self }
    }

    /// Returns the case whose LPIs stay enabled.
    pub(crate) const fn permanent(self) -> Self {
        Self { controller: Controller::PermanentLpi, ..self }
    }

    /// Returns `true` if a redistributor may not write what is pending to its table: if LPIs stay
    /// enabled, or if it loses power in a suspend.
    pub(crate) fn loses_table(&self) -> bool {
        self.controller == Controller::PermanentLpi || self.is_told(SLEEPS)
    }

    /// Returns the case whose redistributors have no power while their vCPU is off.
    pub(crate) const fn powered(self) -> Self {
        Self { controller: Controller::PoweredLpi, ..self }
    }

    pub(crate) const fn moved_every(self, milliseconds: u32) -> Self {
        Self { move_every: Some(milliseconds), ..self }
    }

    pub(crate) const fn with(self, parameters: &'static str) -> Self {
        Self { parameters, ..self }
    }

    /// Returns the case with more words on the kernel's command line, for the guest's program.
    pub(crate) const fn told(self, words: &'static str) -> Self {
        Self { words, ..self }
    }

    pub(crate) fn is_told(&self, words: &str) -> bool {
        self.words == words
    }

    /// Returns the case whose guest owns an SMMU in front of its devices.
    pub(crate) const fn behind_smmu(self) -> Self {
        Self { behind_smmu: true, ..self }
    }

    /// Returns the case whose devices' messages are injected directly.
    pub(crate) const fn directly(self) -> Self {
        Self { direct: true, ..self }
    }

    /// Returns the case with the suite's real-time kernel.
    pub(crate) const fn real_time(self) -> Self {
        Self { real_time: true, ..self }
    }

    const fn below_ports(self) -> Self {
        Self { place: Place::Ports, ..self }
    }

    pub(crate) const fn reading(self, reads: u64) -> Self {
        Self { reads, ..self }
    }
}

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
const READS: u64 = 1000;
/// Number of reads for guests with many more vCPUs than CPUs.
pub(crate) const FEW_READS: u64 = 400;
/// Number of reads, and thus of interrupts, of the long cases.
pub(crate) const MANY_READS: u64 = 100_000;

/// Time limit of two guests, whose newer kernels start slowly on a busy machine.
pub(crate) const LIMIT_OF_TWO: Duration = LIMIT.saturating_mul(3);

/// The cases of every run: each controller, on up to 4 vCPUs.
const CASES: &[Case] = &[
    Case::new(Version::Stable, 4, 4, Controller::Its, GICV4),
    Case::new(Version::Stable, 4, 2, Controller::Its, GICV3).moved_every(50),
    Case::new(Version::Stable, 2, 2, Controller::Its, GICV3).reading(FEW_READS).below_ports(),
    Case::new(Version::Stable, 2, 2, Controller::Mbi, GICV3),
    Case::new(Version::Stable, 2, 2, Controller::V2m, GICV3),
    Case::new(Version::Stable, 1, 1, Controller::Its, GICV3).told(NO_MSI).moved_every(50),
    Case::new(Version::Stable, 1, 1, Controller::None, MAX),
    Case::new(Version::Backports, 2, 2, Controller::Its, MAX),
    Case::newest(2, 2),
    Case::new(Version::Backports, 2, 2, Controller::Its, GICV4).directly(),
    Case::new(Version::Backports, 4, 2, Controller::Its, GICV4).directly(),
    Case::new(Version::Backports, 2, 2, Controller::Its, GICV4).directly().moved_every(50),
];
/// Cases of the long suite: more interrupts, and each kernel on 1, 2 and 8 vCPUs with MBI, and on 1
/// and 8 with an ITS.
const LONG_CASES: &[Case] = &[
    Case::new(Version::Stable, 1, 1, Controller::Its, GICV3),
    Case::new(Version::Stable, 2, 2, Controller::Its, GICV3).reading(MANY_READS),
    Case::new(Version::Stable, 8, 2, Controller::Its, GICV3).reading(FEW_READS),
    Case::new(Version::Stable, 1, 1, Controller::Mbi, GICV3),
    Case::new(Version::Stable, 8, 2, Controller::Mbi, GICV3).reading(FEW_READS),
    Case::new(Version::Backports, 2, 2, Controller::Mbi, GICV3).reading(MANY_READS),
    Case::new(Version::Backports, 1, 1, Controller::Its, GICV3),
    Case::new(Version::Backports, 1, 1, Controller::Mbi, GICV3),
    Case::new(Version::Backports, 8, 2, Controller::Its, GICV3).reading(FEW_READS),
    Case::new(Version::Backports, 8, 2, Controller::Mbi, GICV3).reading(FEW_READS),
    Case::newest(1, 1),
    Case::newest(4, 4),
    Case::newest(8, 2),
    Case::new(Version::Backports, 4, 4, Controller::Its, MAX).of_unstable().directly(),
    Case::new(Version::Stable, 8, 2, Controller::Its, GICV4).directly().reading(FEW_READS),
    Case::new(Version::Backports, 2, 2, Controller::Its, GICV4)
        .directly()
        .reading(FEW_READS)
        .told(SUSPENDS),
    Case::new(Version::Backports, 4, 2, Controller::Its, GICV4)
        .directly()
        .reading(MANY_READS)
        .moved_every(10),
    Case::new(Version::Stable, 4, 2, Controller::Its, GICV3)
        .real_time()
        .reading(FEW_READS)
        .moved_every(50),
    Case::new(Version::Stable, 2, 2, Controller::Mbi, GICV3).real_time(),
    Case::new(Version::Stable, 2, 2, Controller::Its, GICV3)
        .real_time()
        .reading(FEW_READS)
        .told(SUSPENDS),
];

/// Lists the ordinary cases.
pub(crate) fn cases() -> Vec<suite::Case> {
    listed(CASES).chain(confined_cases()).collect()
}

/// Lists the cases that take longer.
pub(crate) fn long_cases() -> Vec<suite::Case> {
    let name = "two confined guests of 2 vCPUs on 2 CPUs, injected directly";
    let direct = built::case(name, LIMIT_OF_TWO, || {
        let (guest, log) = (debian::guest(Suite::Stable)?, built::log_of(name)?);
        let on = (Version::Backports, Place::Root);
        two_guests(on, (Controller::Its, Some(&log)), guest, name)?;
        direct::judge_linux(&log, &(1..=u64::MAX)).map(|_| ())
    });
    listed(LONG_CASES).chain(confined_cases()).chain([direct]).collect()
}

/// Lists the cases with two guests that run the stable kernel. The long suite runs them on each
/// QEMU version.
fn confined_cases() -> Vec<suite::Case> {
    Version::in_turn(|version| {
        [Place::Root, Place::Ports].map(|place| {
            let (guests, place_name) = ("two confined guests of 2 vCPUs on 2 CPUs", place.suffix());
            let name = format!("{guests} of {version:?}'s QEMU{place_name}");
            built::case(name.clone(), LIMIT_OF_TWO, move || {
                let guest = debian::guest(Suite::Stable)?;
                two_guests((version, place), (Controller::Its, None), guest, &name)
            })
        })
    })
}

fn listed(cases: &'static [Case]) -> impl Iterator<Item = suite::Case> {
    cases.iter().map(|case| {
        built::case(case.name(), case.limit(), move || case.judge(case.guest()?, &case.name()))
    })
}

impl Case {
    pub(crate) fn name(&self) -> String {
        let Self { kernel, vcpus, cpus, controller, machine, place, parameters, words, .. } = self;
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
            place.suffix(),
            more[0],
            more[1]
        )
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
        let Self { version, vcpus, cpus, controller, machine, move_every, place, .. } = *self;
        let has_messages = controller != Controller::None;
        let devices = match (has_messages, self.behind_smmu) {
            (false, _) => &[DEVICE],
            (true, false) => &traffic::DEVICES[..],
            (true, true) => &traffic::TRANSLATED_DEVICES,
        };
        let mut devices = place.of(devices);
        if controller.is_direct() {
            devices.extend(traffic::MSI_DEVICES.map(str::to_owned));
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
            record: Record { stats: has_messages && !self.is_told(WATCHED), ..Record::default() },
            ..Board::plain(version, MEMORY)?
        };
        let (kernel, initrd) = (&guest.kernel, Some(guest.initrd.as_path()));
        let append = &self.words_for_linux();
        let mut qemu = board.command(&[Files { kernel, initrd, append }])?;
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

    /// Runs a guest and checks its report. The name must differ from those of concurrent runs.
    pub(crate) fn judge(&self, guest: &Guest, name: &str) -> Result<()> {
        self.judge_seeing(guest, name, |_| ())
    }

    /// Counts the instructions of an interrupt of the disk, from the exception that the hypervisor
    /// takes.
    pub(crate) fn measure(&self, guest: &Guest, name: &str) -> Result<InstructionSplit> {
        let log = built::log_of(name)?;
        let mut qemu = self.told(WATCHED).command(guest, &log)?;
        qemu.args(COUNTED);
        let folder = log.with_extension("cost");
        fs::create_dir_all(&folder)?;
        cost::measure(qemu, &folder, |_| ())
    }

    /// Runs a guest, checks its report, and calls `see` with each line of output.
    pub(crate) fn judge_seeing(
        &self,
        guest: &Guest,
        name: &str,
        see: impl FnMut(&str),
    ) -> Result<()> {
        let Self { vcpus, controller, reads, .. } = *self;
        let log = &built::log_of(name)?;
        let has_messages = controller != Controller::None;
        // A suspend discards the kernel's own read.
        let is_suspended = self.is_told(SUSPENDS) || self.is_told(SLEEPS);
        let discarded = u64::from(is_suspended) * OWN_READS;
        let traffic = Load::Traffic { reads, discarded, log };
        let load = if has_messages { traffic } else { Load::None };
        let moves = self.move_every.map_or(0, |_| MOVES);
        let has_lines = self.is_told(NO_MSI);
        let cpus = vcpus.into();
        let expected = Expected { cpus, typed: TYPED, controller, load, has_lines, moves };
        let report = listen(self.command(guest, log)?, self.limit(), 1, see)?;
        judge(&report, name, &expected)?;
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
        if has_lines { self.judge_own_gic(guest, name, (&expected, &report)) } else { Ok(()) }
    }

    /// Runs the kernel on QEMU's own GIC, where the same counts must hold. The kernel must find the
    /// same windows for PCI there, and place the devices' memory at the same addresses.
    fn judge_own_gic(
        &self,
        guest: &Guest,
        name: &str,
        (expected, hypervisors): (&Expected<'_>, &GuestReports),
    ) -> Result<()> {
        let name = format!("{name} of QEMU's own GIC");
        let log = &built::log_of(&name)?;
        let mut qemu = built::tools(self.version)?.command(qemu::PROGRAM);
        qemu.args(["-M", "virt,gic-version=3", "-cpu", "neoverse-n1"]).args(SURROUNDINGS);
        qemu.args(["-m", &format!("{MEMORY}M"), "-smp", &self.cpus.to_string()]);
        qemu.arg("-kernel").arg(&guest.kernel).arg("-initrd").arg(&guest.initrd);
        qemu.args(["-append", &self.words_for_linux()]);
        qemu.args(traffic::DEVICES.iter().flat_map(|device| ["-device", device]));
        traffic::logged(&mut qemu, log);
        let report = listen(qemu, self.limit(), 1, |_| ())?;
        eprintln!("{name}: {}", report.summary());
        let (found, own) = (hypervisors.pci_memory(), report.pci_memory());
        ensure!(found == own && !own.is_empty(), "PCI's memory: {found:#?}, not {own:#?}");
        report.judge_traffic(expected, [self.reads, 0], (&Sent::read(log)?, None))
    }
}

/// Runs two guests at the same time, whose Direct LPIs a module drives.
pub(crate) fn two_with_direct_lpis(guest: &Guest, name: &str) -> Result<()> {
    two_guests((Version::Stable, Place::Root), (Controller::DirectLpi, None), guest, name)
}

/// Runs two guests at the same time, each with a device that an SMMU confines. The first guest
/// continues after the second has ended. If there is a log, messages are injected directly.
fn two_guests(
    (version, place): (Version, Place),
    (controller, log): (Controller, Option<&Path>),
    guest: &Guest,
    name: &str,
) -> Result<()> {
    let plain = Board::plain(version, MEMORY)?;
    let board = Board {
        machine: if log.is_some() { GICV4 } else { plain.machine },
        direct: log.is_some(),
        vcpus: 2,
        cpus: 2,
        controller,
        devices: &place.of(&[CONFINED_DEVICE; 2]),
        ..plain
    };
    let (kernel, initrd) = (&guest.kernel, Some(guest.initrd.as_path()));
    let alone = format!("{COMMAND_LINE} {WORDS}");
    let waiting = format!("{alone} waits");
    let guests = [&waiting, &alone].map(|append| Files { kernel, initrd, append });
    let load = Load::Random { reads: debian::READS };
    let expected = Expected { cpus: 2, typed: TYPED, controller, load, has_lines: false, moves: 0 };
    let mut qemu = board.command(&guests)?;
    if let Some(log) = log {
        direct::logged(&mut qemu, log);
    }
    let report = listen(qemu, LIMIT_OF_TWO, guests.len(), |_| ())?;
    judge(&report, name, &expected)
}

fn judge(report: &GuestReports, name: &str, expected: &Expected<'_>) -> Result<()> {
    eprintln!("{name}: {}", report.summary());
    report.judge(expected)
}

/// Runs guests, sends them text when they request it, and returns their reports.
pub(crate) fn listen(
    mut qemu: Command,
    limit: Duration,
    guests: usize,
    mut see: impl FnMut(&str),
) -> Result<GuestReports> {
    let (keyboard, mut typist) = io::pipe()?;
    let mut report = GuestReports::of(guests);
    let mut typed = Ok(());
    process::watch(qemu.stdin(keyboard), limit, |line| {
        see(line);
        if report.line(line) {
            typed = typist.write_all(format!("{TYPED}\n").as_bytes());
        }
    })
    .with_context(|| format!("the last line is `{}`", report.last))?;
    typed?;
    Ok(report)
}
