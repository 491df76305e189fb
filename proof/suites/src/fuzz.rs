//! Runs the fuzz targets, built for libFuzzer with the stable compiler. (Coverage doesn't need
//! nightly, and code without `unsafe` doesn't need a sanitizer.)

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use doorbell_harness::suite::{Case, OrAbsent, Shared, is_long};
use doorbell_harness::workspace::{self, Workspace};
use doorbell_harness::{hang, process, system};
use doorbell_test_support::suites::FUZZ_MINUTES;

/// Manifest of the targets, which are a separate workspace.
const MANIFEST: &str = "proof/fuzz/Cargo.toml";
/// Running time of each target in the short tests.
const SECONDS: u64 = 2;
/// Compiler flags that instrument the code for libFuzzer, and enable checks that release builds
/// omit.
const FLAGS: &[&str] = &[
    "--cfg=fuzzing",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Ccodegen-units=1",
    "-Cdebug-assertions",
    "-Coverflow-checks",
];
/// Memory limit of a target in MiB, which uses about 30 MiB after some minutes. Exceeding it counts
/// as a failure.
const MEMORY: &str = "-rss_limit_mb=512";
/// Time after which one input counts as hung.
const INPUT: Duration = Duration::from_secs(10);

pub(crate) fn cases() -> Result<Vec<Case>> {
    let workspace = workspace::this()?;
    let seconds = if is_long() { 60 * FUZZ_MINUTES } else { SECONDS };
    let mut cases = vec![Case::of("unit tests", || {
        let mut cargo = process::cargo(&workspace.root);
        cargo.args(["test", "--manifest-path", MANIFEST, "--lib", "--locked"]);
        process::capture(&mut cargo).map(drop)
    })];
    cases.extend(targets(workspace)?.into_iter().map(|target| {
        Case::of(target.clone(), move || {
            static BUILT: Shared<PathBuf> = Shared::new();
            system::need_cxx(&workspace.root).or_absent("libFuzzer")?;
            fuzz(workspace, BUILT.get(|| build(workspace))?, &target, seconds)
        })
    }));
    Ok(cases)
}

/// Returns the names of the targets, which are the names of their files.
fn targets(workspace: &Workspace) -> Result<Vec<String>> {
    let files =
        workspace.root.join("proof/fuzz/fuzz_targets").read_dir().context("no fuzz targets")?;
    let mut names = Vec::new();
    for file in files {
        let file = file?.path();
        if let (Some(name), Some("rs")) =
            (file.file_stem(), file.extension().and_then(|end| end.to_str()))
        {
            names.push(name.to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// Builds every target, and returns the folder of the programs.
fn build(workspace: &Workspace) -> Result<PathBuf> {
    let host = system::host_triple(&workspace.root)?;
    let target = workspace.target.join("fuzz");
    let mut cargo = process::cargo(&workspace.root);
    cargo.args(["build", "--release", "--locked", "--manifest-path", MANIFEST, "--target", &host]);
    cargo.env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join("\u{1f}")).env("CARGO_TARGET_DIR", &target);
    if !is_long() {
        // Most of a short run is spent on the build, so do not optimize.
        cargo.env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "0");
    }
    process::must(&mut cargo)?;
    Ok(target.join(host).join("release"))
}

fn fuzz(workspace: &Workspace, folder: &Path, target: &str, seconds: u64) -> Result<()> {
    eprintln!("fuzzing {target} for {seconds} s");
    let corpus = workspace.root.join("proof/fuzz/corpus").join(target);
    let artifacts = workspace.root.join("proof/fuzz/artifacts").join(target);
    fs::create_dir_all(&corpus)?;
    fs::create_dir_all(&artifacts)?;
    let mut fuzzer = process::command(&folder.join(target).to_string_lossy(), &workspace.root);
    fuzzer
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-artifact_prefix={}/", artifacts.display()));
    fuzzer.arg(format!("-timeout={}", hang::on_this_machine(INPUT).as_secs())).arg(MEMORY);
    fuzzer.args(["-print_final_stats=1", "-verbosity=0"]).arg(corpus);
    let limit = hang::RUN + Duration::from_secs(seconds);
    let status = process::watch(&mut fuzzer, limit, |line| eprintln!("{line}"))?;
    ensure!(status.success(), "ended with {status}; the input is in {}", artifacts.display());
    Ok(())
}
