//! Tests of devicetree sources: where findings point, and what a source may read.

#![expect(clippy::unwrap_used, reason = "a test that finds nothing to unwrap has failed")]

#[path = "it/said.rs"]
mod said;

use said::{Said, command, rows};
use serde_json::Value;
use std::env;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/dts");

/// Runs the command, which finds `dtc` where it is installed, or else in the cache of the tests.
fn doorbell(arguments: &[&str]) -> Said {
    let mut command = command(arguments);
    command.current_dir(FOLDER);
    let path = env::var_os("PATH").unwrap_or_default();
    if !env::split_paths(&path).any(|folder| folder.join("dtc").exists()) {
        let target = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/cache");
        let cache = env::var_os("DOORBELL_CACHE").map_or_else(|| target.into(), PathBuf::from);
        let tools = cache.join("qemu/usr");
        assert!(tools.join("bin/dtc").exists(), "dtc is neither installed nor in {cache:?}");
        let folders = env::split_paths(&path).chain([tools.join("bin")]);
        command.env("PATH", env::join_paths(folders).unwrap());
        let libraries = format!("lib/{}-linux-gnu", env::consts::ARCH);
        command.env("LD_LIBRARY_PATH", tools.join(libraries));
    }
    Said::of(command.output().unwrap())
}

/// Creates an empty folder.
fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// Writes `board.dts` with a text after its version tag, and runs a subcommand on it.
fn on_source(subcommand: &str, folder: &Path, text: &str) -> Said {
    let path = folder.join("board.dts");
    fs::write(&path, format!("/dts-v1/;\n{text}\n")).unwrap();
    doorbell(&[subcommand, path.to_str().unwrap()])
}

/// Asserts that a source is refused for one of these reasons, and returns what the command says.
#[track_caller]
fn is_refused(said: Said, source: &str, reasons: &[&str]) -> String {
    assert_eq!(said.status, Some(2), "{source}\n{}", said.out);
    assert!(reasons.iter().any(|reason| said.out.contains(reason)), "{source}\n{}", said.out);
    said.out
}

/// Returns the place of each finding of a rule.
fn regions(findings: &Value, rule: &str) -> Vec<String> {
    let region = |row: &Value| {
        let file = row["file"].as_str().unwrap();
        let [line, column, end_line, end_column] =
            ["line", "column", "end_line", "end_column"].map(|field| row[field].as_u64().unwrap());
        format!("{file}:{line}:{column}-{end_line}:{end_column}")
    };
    rows(findings).iter().filter(|row| row["rule"] == rule).map(region).collect()
}

#[test]
fn findings_point_at_the_text_that_sets_a_property() {
    let findings =
        doorbell(&["lint", "-I", "include", "--json", "board.dts"]).with_status(1).json();
    let at = |rule| regions(&findings, rule);
    let interrupts = ["board.dts:5:2-6:13", "board.dts:10:30-10:67"];
    assert_eq!(at("interrupt-specifier"), interrupts, "a macro of two lines; after a comment");
    assert_eq!(at("msi-map-overlap"), ["pcie.dtsi:4:22-5:30"], "not the comment before it");
    assert_eq!(at("its-msi-cells"), ["soc.dtsi:38:8-38:30"], "deleted: at the node");
}

#[test]
fn text_output_shows_the_source_lines_of_findings() {
    let text = doorbell(&["lint", "-I", "include", "board.dts"]).out;
    for shown in [
        "--> board.dts:5:2: /serial@9000000: interrupts\n",
        "5 | /     interrupts = <INTERRUPT(PPI,\n",
        "--> soc.dtsi:38:8: /interrupt-controller@8000000/msi-controller@8080000: #msi-cells\n",
        "38 |         its: msi-controller@8080000 {\n",
    ] {
        assert!(text.contains(shown), "{shown}\n{text}");
    }
}

#[test]
fn github_annotations_and_sarif_name_source_regions() {
    let said = doorbell(&["lint", "-I", "include", "board.dts", "--github"]).out;
    let place = "file=soc.dtsi,line=38,endLine=38,col=8,endColumn=29,title=its-msi-cells::";
    assert!(said.contains(place), "{said}");
    let log = doorbell(&["lint", "-I", "include", "board.dts", "--sarif"]).json();
    let mut results = rows(&log["runs"][0]["results"]).iter();
    let result = results.find(|one| one["ruleId"] == "its-msi-cells").unwrap();
    let place = &result["locations"][0]["physicalLocation"];
    assert_eq!(place["artifactLocation"]["uri"], "soc.dtsi");
    let region = serde_json::json!(
        { "startLine": 38, "startColumn": 8, "endLine": 38, "endColumn": 30 }
    );
    assert_eq!(place["region"], region);
}

#[test]
fn findings_of_an_overlay_point_at_its_text() {
    let folder = "../../../../../crates/gic-firmware/tests/overlay";
    let [base, overlay] = ["base.dts", "first.dtso"].map(|file| format!("{folder}/{file}"));
    let findings = doorbell(&["lint", "--json", &base, &overlay]).json();
    let place = format!("{overlay}:5:2-5:24");
    assert_eq!(regions(&findings, "interrupt-specifier"), [place]);
}

#[test]
fn inspect_explain_graph_report_diff_and_run_read_devicetree_sources() {
    let include = ["-I", "include", "board.dts"];
    for (command, more) in [
        (&["inspect"][..], &[][..]),
        (&["explain"], &["01:00.0"]),
        (&["graph"], &[]),
        (&["report", "--no-run"], &[]),
        (&["diff", "board.dts"], &[]),
        (&["run", "--simulate", "--messages", "1", "--dtb"], &[]),
    ] {
        let arguments: Vec<&str> = match command {
            ["run", ..] => [command, &["board.dts", "-I", "include"]].concat(),
            _ => [command, &include, more].concat(),
        };
        let said = doorbell(&arguments);
        assert_ne!(said.status, Some(2), "{arguments:?}: {}{}", said.out, said.err);
    }
}

#[test]
fn a_source_reads_files_only_from_the_given_folders() {
    let folder = folder("dts-hostile");
    fs::create_dir_all(folder.join("own")).unwrap();
    fs::write(folder.join("secret.dtsi"), "secret").unwrap();
    symlink("../secret.dtsi", folder.join("own/link.dtsi")).unwrap();
    let secret = folder.join("secret.dtsi").display().to_string();
    for text in [
        "#include \"../secret.dtsi\"".to_owned(),
        "#include \"link.dtsi\"".to_owned(),
        format!("#include \"{secret}\""),
        format!("#define S \"{secret}\"\n#include S"),
        format!("#/**/inc\\\nlude <{secret}>"),
        format!("/* #if 0\n*/ #include \"{secret}\""),
        format!("#import \"{secret}\""),
        format!("#if __has_include(\"{secret}\")\n#endif"),
        format!("/include/ \"{secret}\""),
        format!("/ {{ a = /incbin/(\"{secret}\"); }};"),
        format!("#define S /incbin/\n/ {{ a = S(\"{secret}\", 0, 2); }};"),
        format!("/ {{ a = '\"', /incbin/ (\"{secret}\") ; }};"),
        "#include \"/dev/zero\"".to_owned(),
        format!("\0#include \"{secret}\""),
        format!("#\0include \"{secret}\""),
        format!("a\r#include \"{secret}\""),
        format!("\"\\\\\n\" /*\n#include \"{secret}\"\n\" */"),
        format!("\" /*\n/*/\n#include \"{secret}\""),
        format!("_Pragma(\"GCC dependency \\\"{secret}\\\"\")"),
        format!("#define C(a, b) a##b\n#if C(__has_, include)(\"{secret}\")\n#endif"),
        format!("#define C(a, b, c) a##b##c\n#if C(_, _has, _include)(\"{secret}\")\n#endif"),
    ] {
        let said = on_source("lint", &folder.join("own"), &format!("{text}\n/ {{ }};"));
        let reasons = ["`-I DIR`", "not allowed", "control character", "does not end"];
        let said = is_refused(said, &text, &reasons);
        assert!(said.contains("board.dts:"), "{text}\n{said}");
    }
}

/// Linux's `armada-cp11x.dtsi` builds its labels this way.
#[test]
fn a_source_may_paste_preprocessor_tokens() {
    let text = "#define PASTE(a, b) a##b\n#define LABEL(name) PASTE(_, name)\n\
                / { LABEL(a): node { }; };";
    let said = on_source("graph", &folder("dts-pasted"), text).err;
    assert!(!said.contains("cannot compile"), "{said}");
}

/// `dtc` and `cpp` have different rules for comments and strings.
#[test]
fn an_included_file_reads_files_only_from_the_given_folders() {
    let folder = folder("dts-hostile-part");
    fs::create_dir_all(folder.join("own")).unwrap();
    fs::write(folder.join("secret.dtsi"), "secret").unwrap();
    let secret = folder.join("secret.dtsi").display().to_string();
    for text in [
        format!("/ {{ model = \"a\n\"; x = &{{/*}}; }}; /include/ \"{secret}\"\n\" */"),
        format!("/ {{ a = <'/*\\'>; }};\n/include/ \"{secret}\"\n/* */"),
        format!("/* */ /plugin//* a\n/*/ ;\n/include/ \"{secret}\""),
        format!("/*\n*/ /include/\n\"{secret}\""),
        "/*".to_owned(),
        "\"".to_owned(),
    ] {
        fs::write(folder.join("own/part.dtsi"), &text).unwrap();
        let said = on_source("lint", &folder.join("own"), "/include/ \"part.dtsi\"\n/ { };");
        is_refused(said, &text, &["`-I DIR`", "not allowed", "does not end"]);
    }
}

#[test]
fn many_unterminated_quotes_are_refused() {
    let folder = folder("dts-quotes");
    fs::write(folder.join("part.dtsi"), "\\'".repeat(1 << 20)).unwrap();
    on_source("lint", &folder, "/include/ \"part.dtsi\"").with_status(2);
}

#[test]
fn unbounded_macro_or_include_expansion_is_refused() {
    let folder = folder("dts-growth");
    let macros: Vec<_> = (1..40).map(|n| format!("#define M{n} M{0} M{0}\n", n - 1)).collect();
    let macros = macros.concat();
    let itself = "#include \"board.dts\"\n".repeat(2);
    let texts = [(format!("{macros}M39"), "`cpp`"), (itself, "includes itself")];
    for (text, reason) in texts {
        is_refused(on_source("lint", &folder, &text), &text, &[reason]);
    }
}

#[test]
fn a_missing_compiler_is_named_with_its_package() {
    let folder = folder("dts-no-tools");
    symlink("/bin/sh", folder.join("sh")).unwrap();
    let tables = concat!(env!("CARGO_MANIFEST_DIR"), "/../machine/machines/marina/iort.asl");
    for (source, tool, package) in [("board.dts", "cpp", "cpp"), (tables, "iasl", "acpica-tools")] {
        let mut command = command(&["lint", "-I", "include", source]);
        command.current_dir(FOLDER).env("PATH", &folder);
        let said = Said::of(command.output().unwrap()).out;
        let expected = format!("needs `{tool}`, which is in Debian's package `{package}`");
        assert!(said.contains(&expected), "{said}");
    }
}

#[test]
fn doorbell_refuses_unsupported_acpi_sources() {
    for (name, text, refusal) in [
        ("apic.asl", "/* x */\n#include \"mcfg.asl\"\n", "apic.asl:2: expand preprocessor"),
        ("apic.dsl", "// x\n definitionblock (\"\") { Include (\"/etc/passwd\") }", "apic.dsl:2: "),
        ("tables.asl", "Signature : \"IORT\"", "name the source after its table"),
    ] {
        let path = folder("asl").join(name);
        fs::write(&path, text).unwrap();
        let said = doorbell(&["inspect", path.to_str().unwrap()]).with_status(2).err;
        assert!(said.contains(refusal), "{said}");
    }
}

#[test]
fn a_mistake_in_a_source_is_reported_at_its_line() {
    let folder = folder("dts-mistake");
    let said = on_source("inspect", &folder, "/ {\n\treg = <1\n};").with_status(2).err;
    assert!(said.contains(&format!("{}:4.1", folder.join("board.dts").display())), "{said}");
}
