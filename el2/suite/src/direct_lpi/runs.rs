//! Machines whose guest has direct LPIs.

use crate::board::Controller;
use crate::linux::{
    BACKPORTS, FEW_READS, LinuxCase, MANY_READS, READS, SLEEPS, STABLE, SUSPENDS, UNSTABLE,
};

/// The word that makes a guest's program replace the kernel.
pub(super) const KEXECS: &str = "kexecs";
/// Words that reserve memory for another kernel, and let the guest's crash.
pub(super) const CRASHES: &str = "crashes crashkernel=192M";
/// The word that keeps all CPUs online while the modules are loaded.
const AWAKE: &str = "awake";
/// The driver's parameter that limits the number of LPIs.
const FEW_IDS: &str = "id_bits=14";
/// Makes the test's driver declare `edu` an external function, which must get no MSI.
pub(super) const EXTERNAL: &str = "ring.external=1";

/// A kernel of Debian's stable release on two vCPUs.
pub(super) const PLAIN: LinuxCase =
    LinuxCase { controller: Controller::DirectLpi, reads: FEW_READS, ..STABLE };
/// A guest whose LPIs stay enabled.
const PERMANENT: LinuxCase = LinuxCase { controller: Controller::PermanentLpi, ..PLAIN };
/// A guest whose redistributors have no power while their vCPU is off.
const POWERED: LinuxCase = LinuxCase { controller: Controller::PoweredLpi, ..PLAIN };
/// Kernels of Debian's backports, and the newest.
const NEWER: LinuxCase =
    LinuxCase { controller: Controller::DirectLpi, reads: FEW_READS, ..BACKPORTS };
const NEWEST: LinuxCase =
    LinuxCase { controller: Controller::DirectLpi, reads: FEW_READS, ..UNSTABLE };
const POWERED_NEWEST: LinuxCase = LinuxCase { controller: Controller::PoweredLpi, ..NEWEST };
/// A guest that owns an SMMU.
const TRANSLATED: LinuxCase = LinuxCase { vcpus: 1, cpus: 1, behind_smmu: true, ..NEWEST };
/// Such a guest, whose messages move from one mapped doorbell to another.
const MOVING: LinuxCase = LinuxCase { behind_smmu: true, ..NEWEST };

/// Cases of our driver.
pub(super) const DRIVEN: &[LinuxCase] = &[
    LinuxCase { vcpus: 1, cpus: 1, reads: READS, ..PLAIN },
    LinuxCase { reads: READS, ..PLAIN },
    LinuxCase { vcpus: 4, move_every: Some(50), parameters: FEW_IDS, ..PLAIN },
    LinuxCase { vcpus: 4, cpus: 4, ..PERMANENT },
    POWERED,
    LinuxCase { words: SLEEPS, ..POWERED },
    LinuxCase { words: AWAKE, ..PLAIN },
    LinuxCase { words: KEXECS, ..PLAIN },
    LinuxCase { words: KEXECS, ..PERMANENT },
    LinuxCase { move_every: Some(50), parameters: FEW_IDS, ..NEWEST },
];
/// Longer cases of our driver.
pub(super) const DRIVEN_LONG: &[LinuxCase] = &[
    LinuxCase { reads: MANY_READS, ..PLAIN },
    LinuxCase { vcpus: 4, cpus: 4, reads: READS, ..PLAIN },
    LinuxCase { vcpus: 8, ..PLAIN },
    LinuxCase { reads: MANY_READS, ..NEWER },
    LinuxCase { move_every: Some(50), parameters: FEW_IDS, ..NEWER },
    LinuxCase { reads: MANY_READS, ..NEWEST },
    LinuxCase { vcpus: 1, cpus: 1, reads: READS, ..NEWER },
    LinuxCase { vcpus: 8, ..NEWER },
    LinuxCase { words: SUSPENDS, ..PLAIN },
    // With more queues, which the driver deletes at once.
    LinuxCase { vcpus: 4, words: SUSPENDS, ..PLAIN },
    LinuxCase { reads: READS, words: SUSPENDS, ..NEWEST },
    LinuxCase { reads: READS, words: SUSPENDS, ..NEWER },
    LinuxCase { vcpus: 4, controller: Controller::PoweredLpi, words: SLEEPS, ..NEWER },
    LinuxCase { words: SLEEPS, ..POWERED_NEWEST },
    LinuxCase { vcpus: 4, cpus: 4, ..NEWEST },
    LinuxCase { words: CRASHES, ..PLAIN },
    LinuxCase { words: CRASHES, ..PERMANENT },
];
/// Cases of our driver, built into a kernel.
pub(super) const BUILT_IN: &[LinuxCase] = &[
    LinuxCase { vcpus: 1, cpus: 1, ..NEWEST },
    LinuxCase { reads: MANY_READS, ..NEWEST },
    LinuxCase { move_every: Some(50), ..NEWEST },
    LinuxCase { words: KEXECS, ..NEWEST },
    LinuxCase { vcpus: 8, ..NEWEST },
    POWERED_NEWEST,
    LinuxCase { words: SLEEPS, ..POWERED_NEWEST },
    TRANSLATED,
    LinuxCase { words: EXTERNAL, ..TRANSLATED },
    MOVING,
];
/// Cases of the mended RFC.
pub(super) const MENDED: &[LinuxCase] = &[
    LinuxCase { vcpus: 1, cpus: 1, reads: READS, ..PLAIN },
    LinuxCase { reads: READS, ..PLAIN },
    LinuxCase { vcpus: 4, cpus: 4, reads: READS, ..PLAIN },
    LinuxCase { vcpus: 8, ..PLAIN },
    LinuxCase { vcpus: 4, move_every: Some(50), ..PLAIN },
];
