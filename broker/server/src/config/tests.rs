//! Precedence of the sources, and what an operator is told about a mistake.

use super::*;

fn written(text: &str) -> (tempfile::TempDir, Sources) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("portolan.toml");
    std::fs::write(&file, text).unwrap();
    (folder, Sources { file: Some(file), ..Sources::default() })
}

fn environment(variables: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
    variables.iter().map(|(name, value)| (name.into(), value.into())).collect()
}

/// The problems of a file, each as `line: message`.
fn problems(text: &str) -> Vec<String> {
    let (_folder, sources) = written(text);
    let Err(problems) = load(&sources) else { return Vec::new() };
    let line = |problem: &Problem| match &problem.origin {
        Some(Origin::File { line, .. }) => line.to_string(),
        other => format!("{other:?}"),
    };
    problems.iter().map(|p| format!("{}: {}", line(p), p.message)).collect()
}

#[track_caller]
fn check(text: &str, expected: &[&str]) {
    let found = problems(text);
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.contains(expected), "`{found}` should say `{expected}`");
    }
}

#[test]
fn nothing_is_needed() {
    let config = load(&Sources::default()).unwrap().config;
    assert_eq!(config.listeners.amqp.0.len(), 2);
    assert_eq!(config.users[0].name, "guest");
}

#[test]
fn later_sources_win() {
    let (_folder, mut sources) = written("[limits]\nframe_max = 5000\nchannels = 50\nqueues = 5\nexchanges = 5\n");
    sources.environment = environment(&[
        ("PORTOLAN__LIMITS__CHANNELS", "60"),
        ("PORTOLAN__LIMITS__QUEUES", "6"),
        ("PORTOLAN__NODE__DATA_DIR", "/environment"),
        ("PATH", "/bin"),
        ("PORTOLAN_CONFIG", "somewhere"),
    ]);
    sources.settings = vec!["limits.queues=7".into(), "node.data_dir=/setting".into(), "limits.queues = 8".into()];
    sources.data_dir = Some("/argument".into());
    let loaded = load(&sources).unwrap();
    let limits = &loaded.config.limits;
    assert_eq!((limits.frame_max, limits.channels, limits.queues, limits.exchanges), (5000, 60, 8, 5));
    assert_eq!(limits.bindings, Limits::default().bindings);
    assert_eq!(loaded.config.node.data_dir, Path::new("/argument"));
    assert_eq!(loaded.keys_set(), 5);
}

#[test]
fn text_from_the_environment_is_taken_as_the_key_wants_it() {
    let sources = Sources {
        environment: environment(&[
            ("PORTOLAN__NODE__NAME", "12"),
            ("PORTOLAN__LISTENERS__AMQP", "127.0.0.1:1, [::1]:2"),
            ("PORTOLAN__LISTENERS__HTTP", "[]"),
            ("PORTOLAN__LIMITS__MEMORY", "50%"),
            ("PORTOLAN__LIMITS__HEARTBEAT", "30"),
            ("PORTOLAN__LOGGING__FORMAT", "json"),
            ("PORTOLAN__USERS", r#"[{ name = "a", password = "b" }]"#),
            ("PORTOLAN__AUTH__LOOPBACK_USERS", "[]"),
        ]),
        ..Sources::default()
    };
    let config = load(&sources).unwrap().config;
    assert_eq!(config.node.name, "12");
    assert_eq!((config.listeners.amqp.0.len(), config.listeners.http.0.len()), (2, 0));
    assert_eq!(config.limits.memory, Memory::Share(0.5));
    assert_eq!(config.limits.heartbeat, Period::seconds(30));
    assert_eq!(config.logging.format, LogFormat::Json);
    let names: Vec<&str> = config.users.iter().map(|u| u.name.as_str()).collect();
    assert_eq!(names, ["a", "guest"]);
    assert!(config.auth.loopback_users.is_empty());
}

#[test]
fn a_misspelt_key_is_told_with_its_line_and_the_nearest_name() {
    check("[limits]\nframe_mx = 4096\n", &["2: unknown key `limits.frame_mx`; did you mean `limits.frame_max`?"]);
    check("[limit]\n", &["1: unknown key `limit`; did you mean `limits`?"]);
    check("\n[node]\nframe_max = 4096\n", &["3: unknown key `node.frame_max`; did you mean `limits.frame_max`?"]);
    check("[logging]\ncolour = true\n", &["2: unknown key `logging.colour`; known here: format, level"]);
    check(
        "[[users]]\nname = 'a'\npasword = 'b'\n",
        &["3: unknown key `users.pasword`; did you mean `users.password`?"],
    );
    check(
        "[[users]]\nname = 'a'\npassword = 'b'\n[[users.permissions]]\nvhost = '/'\nwrites = '.*'\n",
        &["6: unknown key `users.permissions.writes`; did you mean `users.permissions.write`?"],
    );
    check("[limits]\nframe_mx = 1\nchanels = 1\n", &["2: ", "3: "]);
}

#[test]
fn a_wrong_value_is_told_with_its_line() {
    let table = [
        ("[limits]\n\nframe_max = 'lots'\n", "3: `limits.frame_max`"),
        ("[limits]\nframe_max = -1\n", "2: `limits.frame_max`"),
        ("[limits]\nframe_max = 100\n", "2: `limits.frame_max`: at least 4096"),
        ("[limits]\nmemory = 1.5\n", "2: `limits.memory`: invalid value: floating point `1.5`, expected a share"),
        ("[limits]\nheartbeat = 'often'\n", "expected a time such as"),
        ("[limits]\nheartbeat = '500ms'\n", "whole seconds"),
        ("[limits]\noutbox_low = '1 GiB'\n", "2: `limits.outbox_low`: less than limits.outbox_high"),
        ("[listeners]\namqp = ['5672']\n", "2: `listeners.amqp`: `5672` is not an address: write IP:port"),
        ("[storage]\non_damage = 'ignore'\n", "`refuse` or `repair`"),
        ("[logging]\nlevel = 'inof'\n", "did you mean `info`?"),
        ("limits = 5\n", "1: `limits`"),
        ("[[users]]\ntags = []\n", "1: `users[0]`: missing field `name`"),
        ("[[users]]\nname = 'a'\n", "2: `users.name`: give a `password_hash` or a `password`"),
        ("[[users]]\nname = 'a'\npassword = 5\n", "write the password in quotes"),
        ("[[users]]\nname = 'a'\npassword_hash = 'guest'\n", "3: `users.password_hash`: neither an argon2 hash"),
        ("[[vhosts]]\nname = '/'\n[[vhosts]]\nname = '/'\n", "4: `vhosts.name`: there are two vhosts `/`"),
        ("[limits]\nframe_max = 99999999999999999999\n", "2: `limits.frame_max`"),
        ("[mqtt]\nvhost = 'x'\n", "2: `mqtt.vhost`: there is no vhost `x`"),
        ("[mqtt.vhosts]\n1884 = '/'\n", "2: `mqtt.vhosts`: listeners.mqtt has no address with port 1884"),
        ("[mqtt.vhosts]\n1883 = 'x'\n", "2: `mqtt.vhosts`: there is no vhost `x`"),
        ("[mqtt.vhosts]\nfactory = '/'\n", "2: `mqtt.vhosts.factory`: write a port"),
        ("[mqtt]\nvhosts = '/'\n", "2: `mqtt.vhosts`"),
        ("[mqtt]\nanonymous = 'no'\n", "expected one of `never`, `loopback`, `always`"),
        ("[mqtt]\nanonymous_user = 'x'\n", "2: `mqtt.anonymous_user`: there is no user `x`"),
        ("[mqtt]\nacl_file = 'no/such/file'\n", "2: `mqtt.acl_file`: cannot read no/such/file"),
        ("[mqtt]\npacket_max = '1 GiB'\n", "2: `mqtt.packet_max`: from 1 KiB to 256 MiB"),
        ("[mqtt]\nkeep_alive_max = '1500ms'\n", "whole seconds"),
        ("[mqtt]\nkeep_alive_max = 70000\n", "at most 65535 seconds"),
        ("[mqtt]\nclient_id_max = 8\n", "from 23 to 65535"),
        ("[mqtt]\ninflight_max = 0\n", "at least 1"),
        ("[mqtt]\nsys_interval = '5ms'\n", "at least 1s"),
        ("[mqtt]\nsesion_expiry_max = 1\n", "did you mean `mqtt.session_expiry_max`?"),
        ("[limits\n", "1: "),
        ("[limits]\nqueues = 1\nqueues = 2\n", "3: duplicate key"),
    ];
    for (text, expected) in table {
        check(text, &[expected]);
    }
}

#[test]
fn every_wrong_value_is_told_at_once() {
    let user = "[[users]]\nname = 'a'\npassword = 'b'\n[[users.permissions]]\nvhost = 'x'\nread = '('\n";
    check(user, &["5: `users.permissions.vhost`: there is no vhost `x`", "6: `users.permissions.read`: `(` is not"]);
}

#[test]
fn mistakes_outside_the_file_name_their_place() {
    let told = |sources: Sources| load(&sources).unwrap_err()[0].to_string();
    let variable = environment(&[("PORTOLAN__LIMIT__QUEUES", "7")]);
    let text = told(Sources { environment: variable, ..Sources::default() });
    assert_eq!(text, "environment variable PORTOLAN__LIMIT__QUEUES: unknown key `limit`; did you mean `limits`?");
    let text = told(Sources { settings: vec!["limits.queues=none".into()], ..Sources::default() });
    assert!(text.starts_with("--set limits.queues: `limits.queues`: "), "{text}");
    let text = told(Sources { settings: vec!["limits.queues".into()], ..Sources::default() });
    assert_eq!(text, "--set limits.queues: write it as --set section.key=value");
    let text = told(Sources { file: Some("no/such/file.toml".into()), ..Sources::default() });
    assert!(text.starts_with("cannot read the configuration file no/such/file.toml: "), "{text}");
}

#[test]
fn ports_have_vhosts() {
    let (_folder, mut sources) = written("[[vhosts]]\nname = 'a'\n[[vhosts]]\nname = 'b'\n[mqtt]\nvhost = 'a'\n");
    sources.settings = vec!["mqtt.vhosts.1883=b".into()];
    let mqtt = load(&sources).unwrap().config.mqtt;
    assert_eq!((mqtt.vhost_of(1883), mqtt.vhost_of(1884)), ("b", "a"));
}

#[test]
fn guest_may_enter_whatever_vhosts_there_are() {
    let (_folder, sources) = written("[[vhosts]]\nname = 'a'\n[[vhosts]]\nname = 'b'\n");
    let config = load(&sources).unwrap().config;
    let vhosts: Vec<&str> = config.users[0].permissions.iter().map(|p| p.vhost.as_str()).collect();
    assert_eq!(vhosts, ["a", "b"]);
}

#[test]
fn guest_is_ones_own_when_named_and_gone_when_not_wanted() {
    let (_folder, sources) = written("[[users]]\nname = 'guest'\npassword = 'x'\n");
    let users = load(&sources).unwrap().config.users;
    assert_eq!((users.len(), users[0].permissions.len()), (1, 0));
    let (_folder, sources) = written("[auth]\nguest = false\n");
    assert!(load(&sources).unwrap().config.users.is_empty());
}

#[test]
fn show_names_origins_and_hides_passwords() {
    let (_folder, mut sources) = written("[limits]\nqueues = 5\n[[users]]\nname = 'a'\npassword = 'hunter2'\n");
    sources.settings = vec!["limits.exchanges=6".into()];
    let loaded = load(&sources).unwrap();
    let shown = loaded.show();
    let line = |key: &str| shown.lines().find(|line| line.starts_with(key)).unwrap_or_default();
    assert!(line("queues = 5 ").ends_with("portolan.toml:2"), "{shown}");
    assert!(line("exchanges = 6 ").ends_with("# --set limits.exchanges"), "{shown}");
    assert!(line("bindings = ").ends_with("# default"), "{shown}");
    assert!(line("password = ").contains("hidden") && !shown.contains("hunter2"), "{shown}");
    assert!(loaded.advice()[0].to_string().contains("portolan.toml:5: the password of user `a`"));
    toml::from_str::<toml::Table>(&shown).unwrap();
}

/// The sample names every key with the value that is in force without it, so that it can be copied and pruned.
#[test]
fn the_sample_file_has_every_key_with_its_default() {
    let sample = include_str!("../../../../examples/portolan.toml");
    let (_folder, sources) = written(sample);
    let loaded = load(&sources).unwrap();
    let Content::Table(sections) = Tree::of(as_value(&Config::shape()).unwrap(), &Origin::Default).content else {
        panic!("the root is a table");
    };
    for (section, shape) in &sections {
        match &shape.content {
            Content::Table(keys) => {
                let there = loaded.written.get(section).unwrap_or_else(|| panic!("section {section} is missing"));
                for (key, _) in keys {
                    assert!(there.get(key).is_some(), "{section}.{key} is missing");
                }
            }
            // A list has no default rows to be shown by; its keys stand in comments.
            _ => {
                for key in row_keys(shape) {
                    let shown = sample.contains(&format!("{key} = ")) || sample.contains(&format!(".{key}]]"));
                    assert!(shown, "{section}: {key} is missing");
                }
            }
        }
    }
    // Compared as typed values, so that `60` and `"1m"` are the same.
    let defaults = load(&Sources::default()).unwrap().config;
    let text = |config| toml::to_string(config).unwrap();
    assert_eq!(text(&loaded.config), text(&defaults));
}

fn row_keys(list: &Tree) -> Vec<String> {
    let Some(Content::Table(keys)) = list.get("0").map(|row| &row.content) else { return Vec::new() };
    keys.iter().flat_map(|(key, tree)| std::iter::once(key.clone()).chain(row_keys(tree))).collect()
}

/// What stands in the sample's comments is right once it is uncommented and filled in.
#[test]
fn the_sample_user_wants_only_its_password() {
    let sample = include_str!("../../../../examples/portolan.toml");
    let (_, users) = sample.split_once("There are none by default").unwrap();
    let keys: Vec<&str> = users.lines().filter_map(|line| line.strip_prefix("# ")).collect();
    let (_folder, sources) = written(&keys.join("\n"));
    // What is to be filled in: a hash that everybody can read would be worse than none.
    let problems = load(&sources).unwrap_err();
    assert_eq!(problems.len(), 2, "{problems:#?}");
    for (problem, key) in problems.iter().zip(["`users.password_hash`", "`users.scram_sha_256`"]) {
        assert!(problem.message.starts_with(key), "{problems:#?}");
    }
}

#[test]
fn the_sample_file_explains_every_key() {
    let sample = include_str!("../../../../examples/portolan.toml");
    let lines: Vec<&str> = sample.lines().collect();
    for pair in lines.windows(2) {
        let is_key = |line: &str| line.contains(" = ") && !line.starts_with('#');
        if is_key(pair[1]) {
            assert!(pair[0].starts_with('#'), "`{}` has no comment above it", pair[1]);
        }
    }
}
