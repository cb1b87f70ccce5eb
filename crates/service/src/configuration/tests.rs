use std::collections::BTreeMap;
use std::io::Write as _;

use forecastle_resources::{Bytes, CpuMillis};
use serde::Deserialize;

use super::*;
use crate::Secret;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Program {
    name: String,
    broker: Broker,
    pool: Pool,
    mode: Mode,
    limits: BTreeMap<String, u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Mode {
    Quick,
    Slow,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Broker {
    url: Secret,
    window: u16,
    hosts: Vec<String>,
    tls: Option<Tls>,
}

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Tls {
    verify: bool,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Pool {
    memory: Bytes,
    cpu: CpuMillis,
    headroom: f64,
}

impl Default for Program {
    fn default() -> Self {
        Self {
            name: "program".to_owned(),
            // Not what `Broker::default` says.
            broker: Broker { url: Secret::new("amqp://own-default"), window: 7, ..Broker::default() },
            pool: Pool::default(),
            mode: Mode::Quick,
            limits: BTreeMap::from([("batch".to_owned(), 1)]),
        }
    }
}

impl Default for Broker {
    fn default() -> Self {
        Self { url: Secret::new("amqp://default"), window: 1, hosts: Vec::new(), tls: None }
    }
}

impl Default for Pool {
    fn default() -> Self {
        Self { memory: Bytes(u64::MAX), cpu: CpuMillis(1500), headroom: 0.1 }
    }
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

fn variables(pairs: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
    pairs.iter().map(|(name, value)| (OsString::from(name), OsString::from(value))).collect()
}

fn problems(sources: Sources) -> Vec<Problem> {
    match load::<Program>(sources) {
        Err(ConfigurationError::Invalid(problems)) => problems,
        other => panic!("expected problems, got {other:?}"),
    }
}

#[test]
fn without_sources_it_is_the_defaults() {
    assert_eq!(load::<Program>(Sources::none()).unwrap(), Program::default());
}

#[test]
fn the_command_line_wins_over_the_environment_over_later_files_over_earlier_ones() {
    let first = file("name = 'first'\n[broker]\nwindow = 2\nhosts = ['a', 'b']\n[pool]\nmemory = '1GiB'\n");
    let second = file("[broker]\nwindow = 3\n[pool]\nmemory = 1024\ncpu = 2\n");
    let sources = Sources::none()
        .variables(variables(&[("FORECASTLE__BROKER__WINDOW", "4"), ("FORECASTLE__POOL__CPU", "500m")]))
        .file(first.path())
        .file(second.path())
        .set(["broker.window=5", "pool.headroom = 0.25"])
        .flag("--mode", "mode", Some("slow"))
        .flag("--name", "name", None::<String>);
    let program: Program = load(sources).unwrap();
    assert_eq!(program.name, "first");
    assert_eq!(program.broker.window, 5);
    assert_eq!(program.broker.hosts, ["a", "b"]);
    assert_eq!(program.pool, Pool { memory: Bytes(1024), cpu: CpuMillis(500), headroom: 0.25 });
    assert_eq!(program.mode, Mode::Slow);
}

#[test]
fn a_section_keeps_the_defaults_of_its_program_when_one_of_its_keys_is_set() {
    let program: Program = load(Sources::none().set(["broker.hosts=['x']"])).unwrap();
    assert_eq!(program.broker.window, 7);
    assert_eq!(program.broker.url.expose(), "amqp://own-default");
}

#[test]
fn texts_become_lists_tables_switches_and_optional_sections() {
    let environment = variables(&[
        ("FORECASTLE__BROKER__HOSTS", r#"["a", "b"]"#),
        ("FORECASTLE__BROKER__TLS__VERIFY", "true"),
        ("FORECASTLE__LIMITS", "{ urgent = 3 }"),
        ("FORECASTLE_STACK_DIR", "not ours: one underscore"),
    ]);
    let program: Program = load(Sources::none().variables(environment)).unwrap();
    assert_eq!(program.broker.hosts, ["a", "b"]);
    assert_eq!(program.broker.tls, Some(Tls { verify: true }));
    assert_eq!(program.limits, BTreeMap::from([("batch".to_owned(), 1), ("urgent".to_owned(), 3)]));
}

#[test]
fn a_secret_can_come_from_a_file_by_every_source() {
    let secret = file("amqp://user:password@host\n");
    let path = secret.path().display();
    let toml = file(&format!("[broker]\nurl = {{ file = '{path}' }}\n"));
    let from_file: Program = load(Sources::none().file(toml.path())).unwrap();
    assert_eq!(from_file.broker.url.expose(), "amqp://user:password@host");
    let environment = variables(&[
        ("FORECASTLE__BROKER__URL__FILE", &path.to_string()),
        ("FORECASTLE__BROKER__URL", "amqp://overridden"),
    ]);
    let from_environment: Program = load(Sources::none().variables(environment)).unwrap();
    assert_eq!(from_environment.broker.url.expose(), "amqp://user:password@host");
}

#[test]
fn every_problem_is_reported_at_once_with_its_key_its_source_and_a_near_match() {
    let toml = file("nmae = 'x'\n[brokr]\nurl = 'amqp://u:p@h'\n[pool]\nmemory = 'much'\n");
    let sources = Sources::none()
        .file(toml.path())
        .variables(variables(&[("FORECASTLE__BROKER__WINDOWS", "3"), ("FORECASTLE__BROKER__WINDOW", "-3")]))
        .set(["broker.tls.verify=perhaps", "mode=sluggish", "pool.colour=red"]);
    let found: BTreeMap<String, (String, String)> =
        problems(sources).into_iter().map(|p| (p.key, (p.origin, p.reason))).collect();
    let toml = toml.path().display().to_string();
    let expect = |key: &str, origin: &str, reason: &str| {
        let (actual_origin, actual_reason) = found.get(key).unwrap_or_else(|| panic!("{key} in {found:?}"));
        assert_eq!(actual_origin, origin);
        assert!(actual_reason.contains(reason), "{key}: {actual_reason}");
        assert!(!actual_reason.contains("u:p"), "{actual_reason}");
    };
    expect("nmae", &toml, "did you mean name?");
    expect("brokr", &toml, "did you mean broker?");
    expect("pool.memory", &toml, "`much` is not a number of bytes");
    expect("broker.windows", "environment variable FORECASTLE__BROKER__WINDOWS", "did you mean broker.window?");
    expect("broker.window", "environment variable FORECASTLE__BROKER__WINDOW", "expected an integer");
    expect("broker.tls.verify", "--set broker.tls.verify", "expected a boolean");
    expect("mode", "--set mode", "sluggish");
    expect("pool.colour", "--set pool.colour", "there are memory, cpu, headroom");
    assert_eq!(found.len(), 8, "{found:?}");
}

#[test]
fn a_wrong_entry_of_a_list_is_named_by_its_index() {
    let toml = file("[broker]\nhosts = ['a', { b = 1 }]\n");
    let found = problems(Sources::none().file(toml.path()));
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].key, "broker.hosts[1]");
    assert_eq!(found[0].origin, toml.path().display().to_string());
}

#[test]
fn a_list_that_is_no_toml_is_refused_as_a_text() {
    let found = problems(Sources::none().set(["broker.hosts=[a, b]"]));
    assert_eq!((found[0].key.as_str(), found[0].origin.as_str()), ("broker.hosts", "--set broker.hosts"));
}

#[test]
fn overrides_that_are_no_pairs_or_have_no_key_are_refused() {
    let found = problems(Sources::none().set(["broker.window", "=1", "a..b=1", "broker.hosts[99999999999]=x"]));
    assert_eq!(found.len(), 4, "{found:?}");
    assert!(found[0].reason.contains("section.key=value"));
    assert!(found[1..].iter().all(|problem| problem.reason.contains("it is no key")), "{found:?}");
    assert_eq!(found[3].key, "broker.hosts[99999999999]");
}

#[test]
fn a_variable_that_is_not_utf8_is_refused() {
    use std::os::unix::ffi::OsStringExt as _;
    let value = OsString::from_vec(vec![0xff]);
    let found = problems(Sources::none().variables([(OsString::from("FORECASTLE__NAME"), value)]));
    assert_eq!(found[0].origin, "environment variable FORECASTLE__NAME");
    assert!(found[0].reason.contains("not UTF-8"));
}

#[test]
fn a_secret_of_the_wrong_type_is_not_repeated() {
    let toml = file("[broker]\nurl = 987654321\n");
    let error = load::<Program>(Sources::none().file(toml.path())).unwrap_err().to_string();
    assert!(error.contains("broker.url") && !error.contains("987654321"), "{error}");
}

#[test]
fn a_missing_file_and_a_broken_one_are_named() {
    let error = load::<Program>(Sources::none().file("/nowhere/program.toml")).unwrap_err().to_string();
    assert!(error.contains("/nowhere/program.toml"), "{error}");
    let broken = file("name = 'x'\nbroker = [\n");
    let error = load::<Program>(Sources::none().file(broken.path())).unwrap_err().to_string();
    assert!(error.contains(&broken.path().display().to_string()) && error.contains("line 2"), "{error}");
}
