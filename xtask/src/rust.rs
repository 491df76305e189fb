//! Runs rustfmt, clippy and rustdoc.

use std::process::ExitCode;

use anyhow::Result;

use doorbell_harness::toolchain::{BARE_TARGET, JUDGE_TARGET, need_component, need_target};

use crate::lint;
use crate::tally::Tally;
use doorbell_harness::process;
use doorbell_harness::workspace::Workspace;

/// The workspace, and the parts outside it: the fuzz targets, the bench's peers, the adopters, the
/// images, and the guests that run other projects' kernels. In the images' workspace, `--all` also
/// formats the packages of the main workspace that the images use.
const FORMATTED: &[&[&str]] = &[
    &["--all"],
    &["--manifest-path", "proof/fuzz/Cargo.toml"],
    &["--manifest-path", "peers/arm-vgic/Cargo.toml"],
    &["--manifest-path", "adopters/alioth/Cargo.toml", "--package", "alioth-adopter"],
    &["--manifest-path", "adopters/arceos/Cargo.toml", "--", "adopters/arceos/somehal/its.rs"],
    &["--manifest-path", "adopters/arceos/Cargo.toml", "--", "adopters/arceos/somehal/v3.rs"],
    &["--manifest-path", "images/Cargo.toml", "--all"],
    &["--manifest-path", "el2/Cargo.toml", "--all"],
    &["--manifest-path", "el2/foreign/hermit/Cargo.toml"],
    &["--manifest-path", "el2/foreign/osdemo/Cargo.toml"],
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

/// Runs clippy on everything for the host, the fuzz targets included, on the libraries and the
/// images for bare metal, and on KVM's judge and monitor.
pub(crate) fn clippy(workspace: &Workspace, tally: &mut Tally) -> Result<()> {
    need_component(&workspace.root, "clippy")?;
    let host = ["--workspace", "--all-targets", "--all-features"];
    clippy_case("clippy", workspace, "", &host, tally);
    let target = workspace.target.display().to_string();
    let mut fuzz = process::cargo(&workspace.root.join("proof/fuzz"));
    // The fuzzer's library is only needed to link the targets; without this path, it is built.
    fuzz.env("CUSTOM_LIBFUZZER_PATH", "/nowhere/libfuzzer.a");
    fuzz.args(["clippy", "--target-dir", &target, "--", "-D", "warnings"]);
    tally.case("the fuzz targets", process::must(&mut fuzz));
    if let Err(absent) = need_target(&workspace.root, BARE_TARGET) {
        tally.skip(format!("clippy for {BARE_TARGET}: {absent:#}"));
        return Ok(());
    }
    let bare = ["--target", BARE_TARGET];
    let libraries: Vec<_> = lint::libraries().flat_map(|library| ["--package", library]).collect();
    let libraries = [&bare, &["--lib"][..], &libraries].concat();
    clippy_case(BARE_TARGET, workspace, "", &libraries, tally);
    let small =
        [&bare, &["--package", "gic-driver", "--lib", "--no-default-features"][..]].concat();
    clippy_case("without a heap", workspace, "", &small, tally);
    let images = [&bare, &["--target-dir", &target][..]].concat();
    // `alone` is built separately. In a build with the other packages, cargo would enable their
    // features in its drivers, too, and these features require a heap.
    for (name, folder, packages) in [
        ("images", "images", ["--workspace", "--exclude", "alone"].as_slice()),
        ("el2", "el2", &["--workspace"]),
        ("the image without a heap", "images", &["--package", "alone"]),
    ] {
        clippy_case(name, workspace, folder, &[&images, packages].concat(), tally);
    }
    if let Err(absent) = need_target(&workspace.root, JUDGE_TARGET) {
        tally.skip(format!("clippy for {JUDGE_TARGET}: {absent:#}"));
        return Ok(());
    }
    let judge = ["--package", "kvm-judge", "--target", JUDGE_TARGET];
    clippy_case("KVM's programs", workspace, "", &judge, tally);
    Ok(())
}

/// Runs clippy in a folder, as one case.
pub(crate) fn clippy_case(
    name: &str,
    workspace: &Workspace,
    folder: &str,
    arguments: &[&str],
    tally: &mut Tally,
) {
    let mut clippy = process::cargo(&workspace.root.join(folder));
    clippy.arg("clippy").args(arguments).args(["--", "-D", "warnings"]);
    tally.case(name, process::must(&mut clippy));
}

/// Builds the documentation of every package, which must not cause warnings.
pub(crate) fn docs(workspace: &Workspace, tally: &mut Tally) -> Result<()> {
    let mut doc = process::cargo(&workspace.root);
    doc.env("RUSTDOCFLAGS", "-D warnings");
    process::must(doc.args(["doc", "--workspace", "--all-features", "--no-deps"]))?;
    tally.pass(1);
    Ok(())
}
