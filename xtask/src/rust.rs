//! Runs rustfmt, clippy and rustdoc.

use std::process::ExitCode;

use anyhow::Result;

use doorbell_harness::toolchain::{BARE_TARGET, JUDGE_TARGET, need_component, need_target};

use crate::suites;
use crate::tally::Tally;
use doorbell_harness::process;
use doorbell_harness::workspace::{BARE_METAL as IMAGES, Workspace};

/// Libraries that must build without an operating system.
const BARE_METAL: &[&str] = &[
    "doorbell-fallible",
    "doorbell-lock",
    "msi-types",
    "gic-arch",
    "irq-domain",
    "gic-driver",
    "x86-irq",
    "vgic",
    "vgic-kvm",
    "irq-routing",
    "hyperv-vpci",
    "gic-firmware",
    "gic-bringup",
];
/// Libraries that must also build without a heap, that is, without their default features.
const HEAPLESS: &[&str] = &["gic-driver"];
/// The workspace, and the parts outside it: the fuzz targets, the bench's peers, the adopters and
/// the images. The images' `--all` also formats the packages of the workspace that they use.
const FORMATTED: &[&[&str]] = &[
    &["--all"],
    &["--manifest-path", "proof/fuzz/Cargo.toml"],
    &["--manifest-path", "peers/arm-vgic/Cargo.toml"],
    &["--manifest-path", "adopters/alioth/Cargo.toml", "--package", "alioth-adopter"],
    &["--manifest-path", "images/Cargo.toml", "--all"],
    &["--manifest-path", "el2/Cargo.toml", "--all"],
];

/// Formats every package.
pub(crate) fn format(workspace: &Workspace) -> Result<ExitCode> {
    for packages in FORMATTED {
        process::must(process::cargo(&workspace.root).arg("fmt").args(*packages))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Checks that every package is formatted.
pub(crate) fn check_format(workspace: &Workspace, tally: &mut Tally) -> Result<()> {
    need_component(&workspace.root, "rustfmt")?;
    for packages in FORMATTED {
        let mut cargo = process::cargo(&workspace.root);
        let check = process::must(cargo.args(["fmt", "--check"]).args(*packages));
        tally.case("rustfmt (`cargo xtask fmt` fixes it)", check);
    }
    Ok(())
}

/// Runs clippy on the hypervisor's suite, which runs on the host and is in a separate workspace.
pub(crate) fn clippy_of_suite(workspace: &Workspace, tally: &mut Tally) -> Result<()> {
    need_component(&workspace.root, "clippy")?;
    let mut suite = process::cargo(&workspace.root.join(suites::EL2));
    suite.args(["clippy", "--package", suites::HYPERVISOR, "--all-targets"]);
    tally.case("the hypervisor's suite", process::must(suite.args(["--", "-D", "warnings"])));
    Ok(())
}

/// Runs clippy on everything for the host, on the libraries and the images for bare metal, and on
/// KVM's judge and monitor.
pub(crate) fn clippy(workspace: &Workspace, tally: &mut Tally) -> Result<()> {
    need_component(&workspace.root, "clippy")?;
    let mut host = process::cargo(&workspace.root);
    host.args(["clippy", "--workspace", "--all-targets", "--all-features", "--", "-D", "warnings"]);
    tally.case("clippy", process::must(&mut host));
    if let Err(absent) = need_target(&workspace.root, BARE_TARGET) {
        tally.skip(format!("clippy for {BARE_TARGET}: {absent:#}"));
        return Ok(());
    }
    let mut bare = process::cargo(&workspace.root);
    bare.args(["clippy", "--lib", "--target", BARE_TARGET]);
    bare.args(BARE_METAL.iter().flat_map(|package| ["--package", package]));
    tally.case(BARE_TARGET, process::must(bare.args(["--", "-D", "warnings"])));
    let mut heapless = process::cargo(&workspace.root);
    heapless.args(["clippy", "--lib", "--target", BARE_TARGET, "--no-default-features"]);
    heapless.args(HEAPLESS.iter().flat_map(|package| ["--package", package]));
    tally.case("without a heap", process::must(heapless.args(["--", "-D", "warnings"])));
    for folder in IMAGES {
        let mut images = process::cargo(&workspace.root.join(folder));
        images.args(["clippy", "--workspace", "--target", BARE_TARGET, "--target-dir"]);
        images.arg(workspace.target.join("images"));
        if folder == "images" {
            // `alone` is built separately: together with the other packages, its drivers would have
            // their features, which require a heap.
            images.args(["--exclude", "alone"]);
        } else {
            images.args(["--exclude", suites::HYPERVISOR]);
        }
        tally.case(folder, process::must(images.args(["--", "-D", "warnings"])));
    }
    clippy_of_suite(workspace, tally)?;
    let mut alone = process::cargo(&workspace.root.join("images"));
    alone.args(["clippy", "--package", "alone", "--target", BARE_TARGET, "--target-dir"]);
    alone.arg(workspace.target.join("images"));
    tally.case("the image without a heap", process::must(alone.args(["--", "-D", "warnings"])));
    if let Err(absent) = need_target(&workspace.root, JUDGE_TARGET) {
        tally.skip(format!("clippy for {JUDGE_TARGET}: {absent:#}"));
        return Ok(());
    }
    let mut judge = process::cargo(&workspace.root);
    judge.args(["clippy", "--package", "kvm-judge", "--package", "kvm-monitor"]);
    judge.args(["--target", JUDGE_TARGET]);
    tally.case("KVM's programs", process::must(judge.args(["--", "-D", "warnings"])));
    Ok(())
}

/// Builds the documentation of every package, which must not cause warnings.
pub(crate) fn docs(workspace: &Workspace, tally: &mut Tally) -> Result<()> {
    let mut doc = process::cargo(&workspace.root);
    doc.args(["doc", "--workspace", "--all-features", "--no-deps"])
        .env("RUSTDOCFLAGS", "-D warnings");
    process::must(&mut doc)?;
    tally.pass(1);
    Ok(())
}
