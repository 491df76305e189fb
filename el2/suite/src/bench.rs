//! Runs the test bench as a guest: this project's drivers on each of the virtual machine's MSI
//! controllers, with QEMU's emulated devices.

use std::fs;

use anyhow::{Result, ensure};
use doorbell_harness::image::Image;
use doorbell_harness::process;
use doorbell_harness::qemu::{self, Version};
use doorbell_harness::suite::{Case, Shared};
use doorbell_harness::testbench::Count;

use crate::board::{Board, Controller, LIMIT, MEMORY};
use crate::built;
use crate::files::{self, Files};

const CPUS: u8 = 2;
const LOAD: u32 = 1000;
/// Devices with one MSI, with 16, and with MSI-X. Both `edu` share an INTx line. [`FUNCTIONS`]
/// lists the devices that the guest must find.
const DEVICES: &[&str] = &[
    "edu,addr=8",
    "edu,addr=c",
    "nec-usb-xhci,msix=off",
    "nvme,drive=d0,serial=1",
    "virtio-net-pci,disable-legacy=on,iommu_platform=on,romfile=,event_idx=off",
    "virtio-rng-pci,disable-legacy=on,iommu_platform=on,event_idx=off",
];
const FUNCTIONS: &str = "1033:0194,1234:11e8,1234:11e8,1af4:1041,1af4:1044,1b36:0010";
/// Devices in which the guest sees an MSI capability.
const MSI: &str = "1033:0194,1234:11e8,1234:11e8";

const NO_ITS: &str = "no ITS";
const ONE_CPU: &str = "there is one CPU";

/// Controllers, whether the guest owns an SMMU in front of its devices, the features that the test
/// bench must find, and the permitted reasons for a skip.
const CONTROLLERS: [(Controller, bool, &str, &[&str]); 6] = [
    (
        Controller::Its,
        false,
        "its=on direct-lpi=off mbi=off v2m=off tables=inside",
        &["the ITS keeps its tables elsewhere"],
    ),
    (Controller::DirectLpi, false, "its=off direct-lpi=on mbi=off v2m=off", &[NO_ITS]),
    // Its devices' messages pass the SMMU, which translates the address of the doorbell.
    (Controller::DirectLpi, true, "its=off direct-lpi=on mbi=off v2m=off", &[NO_ITS, ONE_CPU]),
    (Controller::Mbi, false, "its=off direct-lpi=off mbi=on v2m=off", &[NO_ITS]),
    (Controller::V2m, false, "its=off direct-lpi=off mbi=off v2m=on", &[NO_ITS]),
    (
        Controller::None,
        false,
        "its=off direct-lpi=off mbi=off v2m=off",
        &[NO_ITS, "no MSI controller"],
    ),
];

/// Lists the cases: the test bench on each controller. The long suite runs each on each QEMU.
pub(crate) fn cases() -> Vec<Case> {
    let on = |version| {
        CONTROLLERS.iter().map(move |&(controller, owns_smmu, found, reasons)| {
            let how = if owns_smmu { ", behind its own SMMU," } else { "" };
            let name = format!("the test bench with {controller:?}{how} on {version:?}'s QEMU");
            built::case(name.clone(), LIMIT, move || {
                let count = run((controller, owns_smmu), version, found)?;
                eprintln!("{name}: {} passed, {} skipped", count.passed, count.skipped.len());
                ensure!(count.failed.is_empty(), "{}", count.failed.join("; "));
                count.complete(reasons)
            })
        })
    };
    Version::in_turn(on)
}

/// Runs the test bench, and counts its tests.
fn run(
    (controller, owns_smmu): (Controller, bool),
    version: Version,
    found: &str,
) -> Result<Count> {
    static BENCH: [Shared<Image>; 2] = [const { Shared::new() }; 2];
    // With the ITS, an SMMU confines the devices.
    let trusted = controller != Controller::Its;
    let bench =
        BENCH[usize::from(trusted)].get(|| built::guest("testbench", files::ram(trusted)))?;
    let folder =
        built::folder()?.join(format!("{controller:?}-{owns_smmu}-{version:?}").to_lowercase());
    fs::create_dir_all(&folder)?;
    let disk = folder.join("disk.img");
    qemu::write_disk(&disk)?;
    let (cpus, iommu) = if owns_smmu { (1, "smmuv3") } else { (CPUS, "none") };
    let board = Board {
        vcpus: cpus,
        cpus,
        controller,
        guest_smmu: owns_smmu,
        devices: DEVICES,
        trusted,
        ..Board::plain(version, MEMORY)
    };
    let append = format!(
        "cpus={cpus} el=el1 gic=3 security=one iommu={iommu} {found} functions={FUNCTIONS} msi={MSI} \
         load={LOAD}"
    );
    let mut qemu = board.command(&[Files::alone(&bench.flat, &append)])?;
    qemu.args(qemu::drives(&disk));
    let mut count = Count::default();
    process::watch(&mut qemu, LIMIT, |line| count.line(line))?;
    Ok(count)
}
