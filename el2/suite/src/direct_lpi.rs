//! Runs Debian kernels whose Direct LPIs are driven by a module: by the driver in
//! `linux/direct-lpi`, and by the driver that was posted for review in 2021, as posted and with
//! mends. The suite's option `--rfc FILE` names the message with that driver.

mod built_in;
mod guests;
mod own;
mod rfc;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use doorbell_harness::apt::Suite;
use doorbell_harness::linux_checkers::Checkers;
use doorbell_harness::qemu::{HumanMonitor, Version, cost};
use doorbell_harness::suite::{self, OrAbsent, Shared};
use doorbell_harness::workspace;

use self::guests::{
    RETRIGGER_SOURCES, RING_SOURCES, builder, guest, guest_with, own_guest, replacing, slug,
    written,
};
use self::own::Fault;
use self::rfc::Mend;
use crate::board::{COUNTING, LIMIT};
use crate::built;
use crate::controller::Controller;
use crate::debian::{self, Guest};
use crate::linux::{self, Case, FEW_READS, LIMIT_OF_TWO, MANY_READS, SLEEPS, SUSPENDS};
use crate::machine::{GICV3, GICV4};

const OPTION: &str = "--rfc";
/// The word that makes a guest's program replace the kernel.
const KEXECS: &str = "kexecs";
/// Words that reserve memory for another kernel, and let the guest's crash.
const CRASHES: &str = "crashes crashkernel=192M";
/// The place where a mistake of a driver is named.
#[derive(Clone, Copy, Debug)]
enum NamedBy {
    /// A line that the hypervisor or the guest prints, which contains these texts.
    Hypervisor(&'static [&'static str]),
    /// Several such lines.
    Lines(&'static [&'static [&'static str]]),
    /// An error of the judge of the guest's traffic, which contains this text.
    Judge(&'static str),
}

impl NamedBy {
    /// Runs a guest with a mistake, and checks that the mistake is named.
    fn check(self, case: Case, guest: &Guest, name: &str) -> Result<()> {
        match self {
            Self::Hypervisor(texts) => says(case, guest, name, &[texts]),
            Self::Lines(lines) => says(case, guest, name, lines),
            Self::Judge(text) => refuses(case, guest, name, text),
        }
    }
}

/// The mistakes of the RFC: what must be mended before the mistake shows, and how it is named.
const FAULTS: &[(&str, &[Mend], NamedBy)] = &[
    (
        "a virtual address",
        &[],
        NamedBy::Hypervisor(&["0xffff8", "the message's address is not a doorbell"]),
    ),
    (
        "an event instead of an INTID",
        &[Mend::Address],
        NamedBy::Hypervisor(&["GICR_SETLPIR = 0x0", "no such interrupt"]),
    ),
    (
        "a message that a move does not rewrite",
        &[Mend::Address, Mend::Data],
        NamedBy::Judge("all interrupts arrived at one CPU"),
    ),
    (
        "a pending state that cannot be set",
        &[Mend::Address, Mend::Data, Mend::Rewrite],
        NamedBy::Judge("a retriggered interrupt was taken 0 times"),
    ),
];

/// A kernel of Debian's stable release on a number of vCPUs and CPUs.
const fn case(vcpus: u8, cpus: u8) -> Case {
    Case::new(Version::Stable, vcpus, cpus, Controller::DirectLpi, GICV3)
}

/// A kernel of Debian's backports, likewise.
const fn newer(vcpus: u8, cpus: u8) -> Case {
    Case::new(Version::Backports, vcpus, cpus, Controller::DirectLpi, GICV3)
}

/// Cases of our driver.
const DRIVEN: &[Case] = &[
    case(1, 1),
    case(2, 2),
    case(4, 2).reading(FEW_READS).moved_every(50).with("id_bits=14"),
    case(4, 4).reading(FEW_READS).permanent(),
    case(2, 2).reading(FEW_READS).powered(),
    case(2, 2).reading(FEW_READS).powered().told(SLEEPS),
    case(2, 2).reading(FEW_READS).told("awake"),
    case(2, 2).reading(FEW_READS).told(KEXECS),
    case(2, 2).reading(FEW_READS).told(KEXECS).permanent(),
    newer(2, 2).of_unstable().reading(FEW_READS).moved_every(50).with("id_bits=14"),
];
/// Longer cases of our driver.
const DRIVEN_LONG: &[Case] = &[
    case(2, 2).reading(MANY_READS),
    case(4, 4),
    case(8, 2).reading(FEW_READS),
    newer(2, 2).reading(MANY_READS),
    newer(2, 2).reading(FEW_READS).moved_every(50).with("id_bits=14"),
    newer(2, 2).of_unstable().reading(MANY_READS),
    newer(1, 1),
    newer(8, 2).reading(FEW_READS),
    case(2, 2).reading(FEW_READS).told(SUSPENDS),
    // With more queues, which the driver deletes at once.
    case(4, 2).reading(FEW_READS).told(SUSPENDS),
    newer(2, 2).of_unstable().told(SUSPENDS),
    newer(2, 2).told(SUSPENDS),
    newer(4, 2).reading(FEW_READS).powered().told(SLEEPS),
    newer(2, 2).of_unstable().reading(FEW_READS).powered().told(SLEEPS),
    newer(4, 4).of_unstable().reading(FEW_READS),
    case(2, 2).reading(FEW_READS).told(CRASHES),
    case(2, 2).reading(FEW_READS).told(CRASHES).permanent(),
];

/// The most instructions of an interrupt of the disk, by an LPI of the ITS and by a direct LPI.
const DISK_LIMITS: [(Controller, usize); 2] =
    [(Controller::Its, 2_060), (Controller::DirectLpi, 2_200)];

/// Time to build the kernel on a busy machine.
const BUILD_KERNEL: Duration = Duration::from_hours(1);
/// Cases of our driver, built into a kernel.
const BUILT_IN: &[Case] = &[
    newer(1, 1).of_unstable().reading(FEW_READS),
    newer(2, 2).of_unstable().reading(FEW_READS),
    newer(2, 2).of_unstable().reading(FEW_READS).moved_every(50),
    newer(2, 2).of_unstable().reading(FEW_READS).told(KEXECS),
    TRANSLATED,
    TRANSLATED.told(EXTERNAL),
    MOVING,
];
/// A guest that owns an SMMU.
const TRANSLATED: Case = newer(1, 1).of_unstable().reading(FEW_READS).behind_smmu();
/// Such a guest, whose messages move from one mapped doorbell to another.
const MOVING: Case = newer(2, 2).of_unstable().reading(FEW_READS).behind_smmu();

/// Makes the kernel print warnings, and look after two seconds whether the disk has completed a
/// command without an interrupt.
const IMPATIENT: &str = "nvme_core.admin_timeout=2 loglevel=5";
/// Makes the test's driver declare `edu` an external function, which must get no MSI.
const EXTERNAL: &str = "ring.external=1";
/// The refusal of such a function.
const REFUSAL: &str = "direct-lpi: an untrusted function must not reach the redistributors";
/// Faults that are planted into the driver that is built in, and how they are named.
const PLANTED_BUILT_IN: &[(Fault, Case, NamedBy)] = &[
    // The SMMU reports the message, and the disk's interrupt does not arrive.
    (
        Fault::PHYSICAL_DOORBELL,
        TRANSLATED.told(IMPATIENT),
        NamedBy::Lines(&[
            &["event: F_TRANSLATION client: 0000:00:01.0", "iova: 0x8090040 "],
            &["nvme nvme0: ", "timeout, completion polled"],
        ]),
    ),
    (Fault::NO_REFUSAL, TRANSLATED.told(EXTERNAL), NamedBy::Judge("CPU 0 took 120 of 100 MSIs")),
    // The first redistributor does not know that the LPI is enabled.
    (
        Fault::ONE_DOORBELL,
        MOVING.told(IMPATIENT),
        NamedBy::Hypervisor(&["nvme nvme0: ", "timeout, completion polled"]),
    ),
];

/// A kernel on two vCPUs.
const PLAIN: Case = case(2, 2).reading(FEW_READS);

/// Faults that are planted into our driver, and how they are named.
const PLANTED: &[(Fault, Case, NamedBy)] = &[
    // Without `awake`, the second redistributor first reads the byte after it was enabled.
    (Fault::NO_INVLPIR, PLAIN.told("awake"), NamedBy::Judge("a PCI MSI is lost")),
    (
        Fault::TORN_MESSAGE,
        PLAIN.reading(10 * FEW_READS),
        NamedBy::Hypervisor(&["GICR_SETLPIR = 0x0", "no such interrupt"]),
    ),
    (
        Fault::NO_SYNCR,
        PLAIN,
        NamedBy::Hypervisor(&["GICR_INVLPIR", "before GICR_SYNCR.Busy was read as 0"]),
    ),
    (
        Fault::LEFT_PENDING,
        PLAIN.told(KEXECS).permanent(),
        NamedBy::Judge("an MSI was taken that nobody sent"),
    ),
    (
        Fault::ABSENT_CPU,
        PLAIN.powered(),
        NamedBy::Hypervisor(&["no device handles 4 bytes at 0x80c0000"]),
    ),
    (
        Fault::NO_RESUME,
        PLAIN.powered().told(SLEEPS),
        NamedBy::Hypervisor(&["GICR_SETLPIR", "EnableLPIs is 0 at its target"]),
    ),
    (
        Fault::FEW_ID_BITS,
        PLAIN.with("id_bits=14"),
        NamedBy::Hypervisor(&["GICR_PROPBASER", "LPI table too small"]),
    ),
];
/// Faults that only the long run plants.
const PLANTED_LONG: &[(Fault, Case, NamedBy)] = &[
    (
        Fault::TORN_MESSAGE_OF_DEVICE,
        newer(2, 2).of_unstable().reading(10 * FEW_READS),
        NamedBy::Hypervisor(&["GICR_SETLPIR = 0x0", "no such interrupt"]),
    ),
    (Fault::STALE_MESSAGE, PLAIN, NamedBy::Judge("CPU 1 took 0 of 40 MSIs")),
    (Fault::NO_SHUTDOWN, PLAIN.told(KEXECS), NamedBy::Judge("LPIs were left enabled")),
    (
        Fault::OTHER_TABLES,
        PLAIN.told(KEXECS).permanent(),
        NamedBy::Hypervisor(&["LPIs are already enabled", "unknown memory"]),
    ),
    (
        Fault::ONE_PENDING_TABLE,
        PLAIN.told("awake"),
        NamedBy::Hypervisor(&["GICR_PENDBASER", "overlaps that of another redistributor"]),
    ),
];

const MENDED: &[Case] = &[
    case(1, 1),
    case(2, 2),
    case(4, 4),
    case(8, 2).reading(FEW_READS),
    case(4, 2).reading(FEW_READS).moved_every(50),
];

/// Removes `--rfc FILE` from the arguments of a suite, and returns the file.
pub(crate) fn file_in(arguments: &mut Vec<OsString>) -> Option<PathBuf> {
    let at = arguments.iter().position(|argument| argument == OPTION)?;
    let mut option = arguments.drain(at..arguments.len().min(at + 2));
    option.nth(1).map(PathBuf::from)
}

/// Lists the cases: each mistake of the RFC, and the mended RFC.
pub(crate) fn cases(file: Option<&Path>) -> Vec<suite::Case> {
    let faults = FAULTS.iter().map(|(fault, mends, named)| {
        let file = file.map(Path::to_path_buf);
        let name = format!("the RFC's Direct LPI driver: {fault} is named");
        let case = case(2, 2).reading(FEW_READS);
        built::case(name, case.limit(), move || {
            let guest = guest(fault, file.as_deref(), mends)?;
            named.check(case, &guest, fault)
        })
    });
    let mended = MENDED.iter().map(|case| {
        let file = file.map(Path::to_path_buf);
        let name = format!("the RFC's Direct LPI driver, mended: {}", case.name());
        built::case(name.clone(), case.limit(), move || {
            static GUEST: Shared<Guest> = Shared::new();
            let guest = GUEST.get(|| guest("mended", file.as_deref(), Mend::ALL))?;
            case.judge(guest, &name)
        })
    });
    driven(DRIVEN)
        .chain([two(Suite::Stable), refused()])
        .chain(planted(PLANTED))
        .chain(faults)
        .chain(mended)
        .collect()
}

/// Returns the case of a guest that owns an SMMU, but has an ITS.
fn refused() -> suite::Case {
    let name = "a guest with an ITS must not own an SMMU";
    built::case(name, LIMIT, move || {
        let case = Case::new(Version::Stable, 1, 1, Controller::Its, GICV3).behind_smmu();
        says(case, debian::guest(Suite::Stable)?, name, &[&["guest-smmu", "needs controller="]])
    })
}

/// Lists a case for each fault. The driver without faults has its own cases.
fn planted(faults: &'static [(Fault, Case, NamedBy)]) -> impl Iterator<Item = suite::Case> {
    faults.iter().map(|(fault, case, named)| {
        let name = format!("our Direct LPI driver, with a fault: {} is found", fault.name);
        built::case(name, case.limit(), move || {
            let name = slug(&format!("fault-{}", fault.name));
            let guest = guest_with(case.kernel, &name, &fault.planted(own::sources()?)?)?;
            let guest = if case.is_told(KEXECS) { replacing(&guest, &name)? } else { guest };
            named.check(*case, &guest, &name)
        })
    })
}

/// Lists longer cases of our driver.
pub(crate) fn long_cases() -> Vec<suite::Case> {
    const ALL: [Suite; 3] = [Suite::Stable, Suite::Backports, Suite::Unstable];
    let newer = [Suite::Backports, Suite::Unstable];
    driven(DRIVEN_LONG)
        .chain(newer.map(two))
        .chain(planted(PLANTED_LONG))
        .chain(built_in())
        .chain(ALL.map(checked))
        .chain(DISK_LIMITS.map(costs))
        .chain(replaced())
        .collect()
}

/// Lists the cases of kernels with an ITS that another kernel or a crash starts.
fn replaced() -> impl Iterator<Item = suite::Case> {
    let on = |version, machine| Case::new(version, 2, 2, Controller::Its, machine);
    let direct = on(Version::Backports, GICV4).directly();
    let real_time = on(Version::Stable, GICV3).real_time().told(CRASHES);
    [real_time, direct.told(KEXECS), direct.told(CRASHES)].into_iter().map(|case| {
        let case = case.reading(FEW_READS);
        let guest = move || replacing(case.guest()?, &slug(&case.name()));
        built::case(case.name(), case.limit(), move || case.judge(&guest()?, &case.name()))
    })
}

/// Returns the case that counts the instructions of a disk's interrupt in Debian's kernel.
fn costs((controller, limit): (Controller, usize)) -> suite::Case {
    let name = format!("a disk's interrupt by {controller:?} takes at most {limit} instructions");
    built::case(name.clone(), cost::LIMIT, move || {
        let case = Case::new(COUNTING, 1, 1, controller, GICV3);
        let guest = match controller {
            Controller::Its => debian::guest(Suite::Stable)?,
            _ => own_guest(Suite::Stable, false)?,
        };
        let cost = case.measure(guest, &name)?;
        eprintln!("{controller:?}: {cost}; {} in all", cost.total());
        ensure!(cost.total() <= limit, "it takes {}", cost.total());
        Ok(())
    })
}

/// Lists cases of our driver, built into a kernel.
fn built_in() -> impl Iterator<Item = suite::Case> {
    let whole = BUILT_IN.iter().map(|case| {
        let name = format!("our Direct LPI driver, built in: {}", case.name());
        built::case(name.clone(), BUILD_KERNEL + case.limit(), move || {
            static GUEST: Shared<Guest> = Shared::new();
            run(case, GUEST.get(|| built_in::guest(parts()?, "built-in", None))?, &name)
        })
    });
    let planted = PLANTED_BUILT_IN.iter().map(|(fault, case, named)| {
        let name = format!("our Direct LPI driver, built in with a fault: {} is found", fault.name);
        built::case(name, BUILD_KERNEL + case.limit(), move || {
            let name = slug(&format!("built-in-fault-{}", fault.name));
            named.check(*case, &built_in::guest(parts()?, &name, Some(*fault))?, &name)
        })
    });
    let checked = "our Direct LPI driver, built in: checkpatch and sparse";
    let checked = built::case(checked, BUILD_KERNEL, || built_in::check(parts()?));
    whole.chain(planted).chain([checked])
}

fn parts() -> Result<built_in::Parts> {
    let tests = [RING_SOURCES, RETRIGGER_SOURCES];
    Ok(built_in::Parts { builder: builder(Suite::Unstable)?, tests })
}

/// Returns the case that runs the kernel's checkers on our driver. They must find a planted fault
/// and nothing else, which also shows that they ran.
fn checked(kernel: Suite) -> suite::Case {
    let name = format!("our Direct LPI driver: checkpatch and sparse of {kernel:?}'s kernel");
    built::case(name, LIMIT, move || {
        let builder = builder(kernel)?;
        let checkers = Checkers::fetch(workspace::this()?, kernel, builder);
        let checkers = checkers.or_absent("the kernel's checkers")?;
        let sources = Fault::GLOBAL.planted(own::sources()?)?;
        let sources: Vec<_> = sources.iter().map(|(name, text)| (&**name, &**text)).collect();
        let folder = written(&format!("checked-{kernel:?}").to_lowercase(), &sources)?;
        let found = [checkers.checkpatch(&folder)?, checkers.sparse(builder, &folder)?];
        let expected = [["globals to 0"], ["'dlpi_planted' was not declared"]];
        let is_right = |(found, expected): (&Vec<String>, &[&str; 1])| {
            found.len() == 1 && found[0].contains(expected[0])
        };
        ensure!(found.iter().zip(&expected).all(is_right), "checkpatch and sparse say: {found:#?}");
        Ok(())
    })
}

/// Returns the case of two guests with our driver.
fn two(kernel: Suite) -> suite::Case {
    let guests = "two confined guests of 2 vCPUs on 2 CPUs";
    let name = format!("our Direct LPI driver: {guests} with {kernel:?}'s kernel");
    built::case(name.clone(), LIMIT_OF_TWO, move || {
        linux::two_with_direct_lpis(own_guest(kernel, false)?, &name)
    })
}

fn driven(cases: &'static [Case]) -> impl Iterator<Item = suite::Case> {
    cases.iter().map(|case| {
        let name = format!("our Direct LPI driver: {}", case.name());
        built::case(name.clone(), case.limit(), move || {
            run(case, own_guest(case.kernel, case.loses_table())?, &name)
        })
    })
}

/// Judges a guest with our driver, which must use its redistributors without a fault.
fn run(case: &Case, guest: &Guest, name: &str) -> Result<()> {
    let (mut faults, mut refusals) = (Vec::new(), 0);
    let is_replaced = case.is_told(KEXECS) || case.is_told(CRASHES);
    let replacing = is_replaced.then(|| replacing(guest, &slug(name))).transpose()?;
    case.judge_seeing(replacing.as_ref().unwrap_or(guest), name, |line| {
        faults.extend(line.contains("gicr@").then(|| line.trim_end().to_owned()));
        refusals += u32::from(line.contains(REFUSAL));
    })?;
    let is_external = case.is_told(EXTERNAL);
    ensure!(is_external == (refusals > 0), "the driver refused {refusals} functions");
    ensure!(faults.is_empty(), "the hypervisor says: {faults:?}");
    Ok(())
}

/// Checks that the hypervisor or the guest prints a line with each of these groups of texts.
fn says(case: Case, guest: &Guest, name: &str, wanted: &[&[&str]]) -> Result<()> {
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
fn refuses(case: Case, guest: &Guest, name: &str, text: &str) -> Result<()> {
    let Err(error) = case.judge(guest, name) else { bail!("the judge found nothing") };
    let error = format!("{error:#}");
    ensure!(error.contains(text), "the judge says: {error}");
    eprintln!("{error}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_planted_fault_changes_exactly_one_driver_file() {
        for (fault, ..) in PLANTED {
            let before = own::sources().unwrap();
            let after = fault.planted(before.clone()).unwrap();
            let changed = before.iter().zip(&after).filter(|(before, after)| before != after);
            assert_eq!(changed.count(), 1, "{}", fault.name);
        }
    }
}
