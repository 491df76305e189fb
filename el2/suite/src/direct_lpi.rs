//! Runs Debian kernels whose Direct LPIs are driven by a module: by the driver in
//! `linux/direct-lpi`, and by the driver that was posted for review in 2021, as posted and with
//! mends. The suite's option `--rfc FILE` names the message with that driver.

mod built_in;
mod guests;
mod named;
mod own;
mod rfc;
mod runs;

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use doorbell_harness::apt::Suite;
use doorbell_harness::linux_checkers::Checkers;
use doorbell_harness::qemu::{Version, cost};
use doorbell_harness::suite::{Case, OrAbsent, Shared};
use doorbell_harness::workspace;

use self::guests::{
    RETRIGGER_SOURCES, RING_SOURCES, builder, guest, own_guest, replacing, written,
};
use self::named::says;
use self::rfc::{MISTAKES, Mistake};
use self::runs::{BUILT_IN, CRASHES, DRIVEN, DRIVEN_LONG, EXTERNAL, KEXECS, MENDED, PLAIN};
use crate::board::{Controller, GICV4, LIMIT};
use crate::built::{self, slug};
use crate::debian::{self, Guest};
use crate::linux::{self, BACKPORTS, FEW_READS, LIMIT_OF_TWO, LinuxCase, REAL_TIME, STABLE};

/// The most instructions of an interrupt of the disk, by an LPI of the ITS and by a direct LPI.
const DISK_LIMITS: [(Controller, usize); 2] =
    [(Controller::Its, 2_060), (Controller::DirectLpi, 2_200)];

/// Time to build the kernel on a busy machine.
const BUILD_KERNEL: Duration = Duration::from_hours(1);
/// The refusal of an external function.
const REFUSAL: &str = "direct-lpi: an untrusted function must not reach the redistributors";

/// Lists cases of our driver. `guest` returns a guest with it, for which a kernel may be built.
fn driven(
    how: &'static str,
    cases: &'static [LinuxCase],
    guest: fn(&LinuxCase) -> Result<&'static Guest>,
) -> impl Iterator<Item = Case> {
    cases.iter().map(move |case| {
        let name = format!("our Direct LPI driver{how}: {}", case.name());
        built::case(name.clone(), BUILD_KERNEL + case.limit(), move || {
            run(case, guest(case)?, &name)
        })
    })
}

fn with_module(case: &LinuxCase) -> Result<&'static Guest> {
    own_guest(case.kernel, case.loses_table())
}

/// Lists the cases: each mistake of the RFC, and the mended RFC.
pub(crate) fn cases(file: Option<&Path>) -> Vec<Case> {
    let mistakes = (0..).zip(&MISTAKES).map(|(earlier, mistake)| {
        let Mistake { name: mistake, named, .. } = mistake;
        let file = file.map(Path::to_path_buf);
        let name = format!("the RFC's Direct LPI driver: {mistake} is named");
        built::case(name, PLAIN.limit(), move || {
            let guest = guest(mistake, file.as_deref(), earlier)?;
            named.check(PLAIN, &guest, mistake)
        })
    });
    let mended = MENDED.iter().map(|case| {
        let file = file.map(Path::to_path_buf);
        let name = format!("the RFC's Direct LPI driver, mended: {}", case.name());
        built::case(name.clone(), case.limit(), move || {
            static GUEST: Shared<Guest> = Shared::new();
            let guest = GUEST.get(|| guest("mended", file.as_deref(), MISTAKES.len()))?;
            case.judge(guest, &name).map(drop)
        })
    });
    driven("", DRIVEN, with_module)
        .chain([two(Suite::Stable), refused()])
        .chain(mistakes)
        .chain(mended)
        .collect()
}

/// Returns the case of a guest that owns an SMMU, but has an ITS.
fn refused() -> Case {
    let name = "a guest with an ITS must not own an SMMU";
    built::case(name, LIMIT, move || {
        let case = LinuxCase { vcpus: 1, cpus: 1, behind_smmu: true, ..STABLE };
        says(case, debian::guest(Suite::Stable)?, name, &[&["guest-smmu", "needs controller="]])
    })
}

/// Lists longer cases of our driver.
pub(crate) fn long_cases() -> Vec<Case> {
    const ALL: [Suite; 3] = [Suite::Stable, Suite::Backports, Suite::Unstable];
    let newer = [Suite::Backports, Suite::Unstable];
    let in_kernel = "our Direct LPI driver, built in: checkpatch and sparse";
    let whole = |_: &LinuxCase| {
        static GUEST: Shared<Guest> = Shared::new();
        GUEST.get(|| built_in::guest(parts()?, "built-in"))
    };
    driven("", DRIVEN_LONG, with_module)
        .chain(newer.map(two))
        .chain(driven(", built in", BUILT_IN, whole))
        .chain([built::case(in_kernel, BUILD_KERNEL, || built_in::check(parts()?))])
        .chain(ALL.map(checked))
        .chain(DISK_LIMITS.map(costs))
        .chain(replaced())
        .collect()
}

/// Lists the cases of kernels with an ITS that another kernel or a crash starts.
fn replaced() -> impl Iterator<Item = Case> {
    let direct =
        LinuxCase { machine: GICV4, direct: true, reads: FEW_READS, words: KEXECS, ..BACKPORTS };
    let crash = [REAL_TIME, direct].map(|case| LinuxCase { words: CRASHES, ..case });
    [crash[0], direct, crash[1]].into_iter().map(|case| {
        let guest = move || replacing(case.guest()?, &slug(&case.name()));
        built::case(case.name(), case.limit(), move || {
            case.judge(&guest()?, &case.name()).map(drop)
        })
    })
}

/// Returns the case that counts the instructions of a disk's interrupt in Debian's kernel.
fn costs((controller, limit): (Controller, usize)) -> Case {
    let name = format!("a disk's interrupt by {controller:?} takes at most {limit} instructions");
    built::case(name.clone(), cost::LIMIT, move || {
        let case = LinuxCase { vcpus: 1, cpus: 1, controller, ..BACKPORTS };
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

fn parts() -> Result<built_in::Parts> {
    let tests = [RING_SOURCES, RETRIGGER_SOURCES];
    Ok(built_in::Parts { builder: builder(Suite::Unstable)?, tests })
}

/// Returns the case that runs the kernel's checkers on our driver. They must find a planted fault
/// and nothing else, which also shows that they ran.
fn checked(kernel: Suite) -> Case {
    let name = format!("our Direct LPI driver: checkpatch and sparse of {kernel:?}'s kernel");
    built::case(name, LIMIT, move || {
        let builder = builder(kernel)?;
        let checkers = Checkers::fetch(workspace::this()?, kernel, builder);
        let checkers = checkers.or_absent("the kernel's checkers")?;
        let sources = own::GLOBAL.made(own::sources()?)?;
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
fn two(kernel: Suite) -> Case {
    let guests = "two confined guests of 2 vCPUs on 2 CPUs";
    let name = format!("our Direct LPI driver: {guests} with {kernel:?}'s kernel");
    built::case(name, LIMIT_OF_TWO, move || {
        let on = (Version::Stable, false);
        linux::two_guests(on, (Controller::DirectLpi, None), own_guest(kernel, false)?)
    })
}

/// Judges a guest with our driver, which must use its redistributors without a fault.
fn run(case: &LinuxCase, guest: &Guest, name: &str) -> Result<()> {
    let is_replaced = [KEXECS, CRASHES].contains(&case.words);
    let replacing = is_replaced.then(|| replacing(guest, &slug(name))).transpose()?;
    let output = case.judge(replacing.as_ref().unwrap_or(guest), name)?;
    let is_refused = output.contains(REFUSAL);
    ensure!((case.words == EXTERNAL) == is_refused, "the driver refused a function: {is_refused}");
    let faults = output.faults().into_iter().filter(|fault| fault.contains("gicr@"));
    let faults: Vec<_> = faults.collect();
    ensure!(faults.is_empty(), "the hypervisor says: {faults:?}");
    Ok(())
}
