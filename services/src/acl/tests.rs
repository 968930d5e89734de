#![allow(clippy::unwrap_used, reason = "a test fails as it does")]

use super::*;
use crate::command::lookup;
use crate::resp::Protocol;
use proptest::prelude::*;

fn user(rules: &str) -> User {
    let mut user = User::new();
    user.apply(&words(rules)).unwrap();
    user
}

fn words(text: &str) -> Vec<&[u8]> {
    text.split(' ').filter(|word| !word.is_empty()).map(str::as_bytes).collect()
}

fn error(rules: &str) -> String {
    User::new().apply(&words(rules)).unwrap_err().to_string()
}

fn told(user: &User) -> String {
    String::from_utf8(user.describe()).unwrap()
}

/// Whether a user with these rules may, and if not, why.
fn verdict(rules: &str, command: &str) -> Result<(), Denied> {
    let args = words(command);
    user(rules).check(lookup(args[0]).unwrap(), &args)
}

#[test]
fn commands_are_allowed_one_by_one_by_category_and_by_subcommand() {
    for (rules, command, expected) in [
        ("~*", "get k", Err(Denied::Command)),
        ("~* +get", "get k", Ok(())),
        ("~* +GET", "set k v", Err(Denied::Command)),
        ("~* +@read", "get k", Ok(())),
        ("~* +@read", "set k v", Err(Denied::Command)),
        ("~* +@all -@dangerous", "keys *", Err(Denied::Command)),
        ("~* +@all -@dangerous", "get k", Ok(())),
        ("+client", "client kill id 1", Ok(())),
        ("+client -client|kill", "client KILL id 1", Err(Denied::Command)),
        ("+client -client|kill", "client id", Ok(())),
        ("+client|id", "client id", Ok(())),
        ("+client|id", "client list", Err(Denied::Command)),
        ("+@all -client +client|id", "client id", Ok(())),
        ("+@all -client +client|id", "client info", Err(Denied::Command)),
        // A subcommand that isn't there counts as the command.
        ("+client|id", "client nonsense", Err(Denied::Command)),
        ("+select|0", "select 0", Ok(())),
        ("+select|0", "select 1", Err(Denied::Command)),
        ("+select|0 -select", "select 0", Err(Denied::Command)),
        ("+flotilla.cluster|status", "flotilla.cluster status", Ok(())),
        ("+flotilla.cluster|status", "flotilla.cluster move 1 2", Err(Denied::Command)),
        // Whose members is said before what is to become of them.
        ("+@all -flotilla.member|remove", "flotilla.member remove 2", Err(Denied::Command)),
        ("+@all -flotilla.member|remove", "flotilla.member group 0 REMOVE 2", Err(Denied::Command)),
        ("+flotilla.member|status", "flotilla.member group controller status", Ok(())),
        ("+flotilla.member|status", "flotilla.member group 0 set 1 2 3", Err(Denied::Command)),
    ] {
        assert_eq!(verdict(rules, command), expected, "{rules}: {command}");
    }
}

#[test]
fn keys_are_allowed_by_pattern_for_reading_and_writing() {
    for (rules, command, expected) in [
        ("+@all ~app:*", "get app:1", Ok(())),
        ("+@all ~app:*", "get other", Err(Denied::Key(1))),
        ("+@all ~app:*", "mset app:1 x other y", Err(Denied::Key(3))),
        ("+@all ~a* ~b*", "mget a1 b1", Ok(())),
        ("+@all", "ping", Ok(())),
        ("+@all", "get k", Err(Denied::Key(1))),
        ("+@all %R~r*", "get r1", Ok(())),
        ("+@all %R~r*", "set r1 v", Err(Denied::Key(1))),
        ("+@all %R~r*", "exists r1", Ok(())),
        ("+@all %R~r* %W~w*", "copy r1 w1", Ok(())),
        ("+@all %R~r* %W~w*", "copy w1 r1", Err(Denied::Key(1))),
        ("+@all %R~r* %W~w*", "rename w1 w2", Err(Denied::Key(1))),
        ("+@all %R~r* %W~w*", "bitop and w1 r1 r2", Ok(())),
        ("+@all %R~r* %W~w*", "bitop and w1 w2 r2", Err(Denied::Key(3))),
        ("+@all %W~w*", "set w1 v", Ok(())),
        ("+@all %W~w*", "set w1 v GET", Err(Denied::Key(1))),
        ("+@all %W~w*", "incr w1", Err(Denied::Key(1))),
        ("+@all %W~w*", "append w1 x", Ok(())),
        ("+@all %R~r*", "bitfield r1 get u8 0", Ok(())),
        ("+@all %R~r*", "bitfield r1 get u8 0 set u8 0 1", Err(Denied::Key(1))),
        ("+@all %R~k %W~k", "incr k", Ok(())),
        ("+@all ~app:*", "watch app:1 other", Err(Denied::Key(2))),
        // Names and values of whatever is between two keys.
        ("+@all ~app:*", "flotilla.range - +", Err(Denied::Key(1))),
        ("+@all %R~*", "flotilla.range - +", Ok(())),
        ("+@all ~app:*", "flotilla.walk app:1 - +", Err(Denied::Key(1))),
        ("+@all %R~*", "flotilla.walk app:1 - +", Ok(())),
        ("+@all %R~* %W~app:*", "flotilla.publish app:1", Err(Denied::Key(1))),
        ("+@all %W~*", "flotilla.publish app:1", Ok(())),
        ("+@all ~*", "flotilla.range - +", Ok(())),
        // What a session's write does counts, too.
        ("+@all ~app:*", "flotilla.once 1 1 0 set app:1 v", Ok(())),
        ("+@all ~app:*", "flotilla.once 1 1 0 set other v", Err(Denied::Key(5))),
        ("+@all -set ~*", "flotilla.once 1 1 0 set k v", Err(Denied::Command)),
        ("+set ~*", "flotilla.once 1 1 0 set k v", Err(Denied::Command)),
    ] {
        assert_eq!(verdict(rules, command), expected, "{rules}: {command}");
    }
}

#[test]
fn selectors_are_alternatives_and_not_added_up() {
    let rules = "(+@write ~w:*) (+@read ~r:*)";
    assert_eq!(verdict(rules, "set w:1 v"), Ok(()));
    assert_eq!(verdict(rules, "get r:1"), Ok(()));
    assert_eq!(verdict(rules, "get w:1"), Err(Denied::Key(1)));
    assert_eq!(verdict(rules, "ping"), Err(Denied::Command));
    assert_eq!(verdict("(%R~r* +@all) (%W~w* +@all)", "copy r w"), Err(Denied::Key(2)));
    assert_eq!(verdict("(+@all ~*) clearselectors", "ping"), Err(Denied::Command));
    assert_eq!(error("( ~k +get"), "Unmatched parenthesis in acl selector starting at '('.");
    assert!(error("(nonsense)").contains("'(nonsense)': Syntax error"));
    assert_eq!(user("( ~k +get )"), user("(~k +get)"));
}

#[test]
fn mistakes_have_the_words_of_redis() {
    for (rules, expected) in [
        ("nonsense", "Error in ACL SETUSER modifier 'nonsense': Syntax error"),
        ("+nonsense", "'+nonsense': Unknown command or category name in ACL"),
        ("+@nonsense", "Unknown command or category name in ACL"),
        ("+client|nonsense", "Unknown command or category name in ACL"),
        ("-client|nonsense", "Unknown command or category name in ACL"),
        ("-get|x", "Unknown command or category name in ACL"),
        ("+get|a|b", "Unknown command or category name in ACL"),
        ("+config|get|x", "Allowing first-arg of a subcommand is not supported"),
        ("+select|", "Syntax error"),
        ("%X~k", "Syntax error"),
        ("%RR~k", "Syntax error"),
        ("%~k", "Syntax error"),
        ("%R", "Syntax error"),
        ("~* ~k", "Adding a pattern after the * pattern (or the 'allkeys' flag) is not valid"),
        ("&* &c", "Adding a pattern after the * pattern (or the 'allchannels' flag) is not valid"),
        ("<gone", "'<(redacted)': The password you are trying to remove from the user does not exist"),
        ("#ABC", "'#(redacted)': The password hash must be exactly 64 characters"),
        ("!abc", "'!(redacted)': The password hash must be exactly 64 characters"),
    ] {
        assert!(error(rules).contains(expected), "{rules}: {}", error(rules));
    }
}

#[test]
fn passwords_come_and_go() {
    let accepts = |user: &User, password: &str| user.accepts(PasswordHash::of(password.as_bytes()));
    let mut ann = user("on >one >two");
    assert!(accepts(&ann, "one") && accepts(&ann, "two") && !accepts(&ann, "three") && !accepts(&ann, ""));
    ann.apply(&words("<one")).unwrap();
    assert!(!accepts(&ann, "one") && accepts(&ann, "two"));
    ann.apply(&words("off")).unwrap();
    assert!(!accepts(&ann, "two"));
    ann.apply(&words("on nopass")).unwrap();
    assert!(accepts(&ann, "anything") && ann.is_open());
    ann.apply(&words("resetpass")).unwrap();
    assert!(!accepts(&ann, "anything") && !accepts(&ann, "two"));
    // All or nothing.
    let before = ann.clone();
    assert!(ann.apply(&words("on >x +nonsense")).is_err());
    assert_eq!(ann, before);
    assert_eq!(
        without_passwords(words(">one <two ~k #ab")),
        [
            format!("#{}", PasswordHash::of(b"one").hex()),
            format!("!{}", PasswordHash::of(b"two").hex()),
            "~k".into(),
            "#ab".into()
        ]
        .map(String::into_bytes)
    );
}

#[test]
fn users_are_told_as_redis_tells_them() {
    for (rules, expected) in [
        ("", "off resetchannels -@all"),
        ("on nopass ~* &* +@all", "on nopass ~* &* +@all"),
        ("on ~app:* %R~x %W~y +@read", "on ~app:* %R~x %W~y resetchannels -@all +@read"),
        ("+@all -client|kill", "off resetchannels +@all -client|kill"),
        ("+@all -client +client|id", "off resetchannels +@all -client +client|id"),
        ("+@all -@all", "off resetchannels -@all"),
        ("&foo +@all", "off resetchannels &foo +@all"),
        ("+select|0", "off resetchannels -@all +select|0"),
        ("(~k +get)", "off resetchannels -@all (~k resetchannels -@all +get)"),
    ] {
        assert_eq!(told(&user(rules)), expected, "{rules}");
    }
    for name in category::NAMES {
        let rules = |begin: &str, sign: &str| user(&format!("{begin} {sign}@{name}")).root.command_rules();
        let is_empty =
            Unit::all().all(|unit| unit.categories() & category::by_name(name.as_bytes()).unwrap() == 0);
        if !is_empty {
            assert_eq!(rules("+@all", "-"), format!("+@all -@{name}"));
            assert_eq!(rules("-@all", "+"), format!("-@all +@{name}"));
        }
    }
}

#[test]
fn a_name_and_its_password_open_the_door() {
    let users = [(b"ann".to_vec(), user("on >secret +ping"))].into();
    let mut acl = Acl::new(users, 7);
    assert!(acl.authenticates(b"ann", b"secret") && acl.authenticates(b"default", b"anything"));
    assert!(!acl.authenticates(b"ann", b"other") && !acl.authenticates(b"bob", b"secret"));
    assert!(!acl.remove(DEFAULT_USER) && acl.remove(b"ann") && !acl.remove(b"ann"));
    assert!(acl.default_user().is_unlimited());
    assert_eq!(acl.changed(b"a a", &[]), Err(BadName.to_string()));
    for (bits, digits) in [(None, 64), (Some("1"), 1), (Some("5"), 2), (Some("4096"), 1024)] {
        let bits = bits.map(str::as_bytes);
        assert_eq!(acl.generate(bits.as_ref()).unwrap().len(), digits);
    }
    for bad in ["0", "-236", "5000"] {
        assert!(acl.generate(Some(&bad.as_bytes())).unwrap_err().contains("must be the number of bits"));
    }
}

#[test]
fn a_user_as_a_reply_is_a_map_of_six() {
    let mut bytes = Vec::new();
    write_user(&user("on >x ~k +get"), &mut ReplyWriter::new(&mut bytes, Protocol::Resp3));
    let text = String::from_utf8(bytes).unwrap();
    assert!(text.starts_with("%6\r\n$5\r\nflags\r\n~1\r\n$2\r\non\r\n"), "{text}");
    assert!(text.contains(&PasswordHash::of(b"x").hex()) && text.contains("-@all +get"), "{text}");
}

/// Rules of which any row is valid.
fn valid_rules() -> impl Strategy<Value = Vec<String>> {
    let names: Vec<String> = Unit::all().map(Unit::name).collect();
    let any_unit = proptest::sample::select(names);
    let any_category = proptest::sample::select(category::NAMES.to_vec());
    let sign = prop_oneof![Just("+"), Just("-")];
    let rule = prop_oneof![
        (sign.clone(), any_unit).prop_map(|(sign, name)| format!("{sign}{name}")),
        (sign, any_category).prop_map(|(sign, name)| format!("{sign}@{name}")),
        proptest::sample::select(vec![
            "+@all",
            "-@all",
            "on",
            "off",
            "nopass",
            "resetpass",
            "resetkeys",
            "allkeys",
            "resetchannels",
            "allchannels",
            "skip-sanitize-payload",
            "sanitize-payload",
            ">one",
            ">two",
            "(~a +get)",
            "(%R~b* +@read -ttl)",
            "+select|0",
            "+move|k",
            "clearselectors",
        ])
        .prop_map(str::to_owned),
        "[a-z]{0,3}".prop_map(|pattern| format!("~{pattern}x")),
        "[a-z]{0,3}".prop_map(|pattern| format!("%R~{pattern}x")),
        "[a-z]{0,3}".prop_map(|pattern| format!("%w~{pattern}x")),
    ];
    proptest::collection::vec(rule, 0..30)
}

proptest! {
    #[test]
    fn arbitrary_rules_never_panic_and_are_applied_whole_or_not_at_all(rules: Vec<Vec<u8>>) {
        let mut user = user("on >x ~k +@read");
        let before = user.clone();
        let rules: Vec<&[u8]> = rules.iter().map(Vec::as_slice).collect();
        if user.apply(&rules).is_err() {
            prop_assert_eq!(&user, &before);
        }
        drop(user.describe());
    }

    #[test]
    fn a_user_is_made_again_by_what_is_told_of_it(rules in valid_rules()) {
        let mut made = User::new();
        for rule in &rules {
            // A pattern behind `allkeys` is an error, and changes nothing.
            let _ = made.apply(&[rule.as_bytes()]);
        }
        let described = told(&made);
        prop_assert_eq!(&told(&user(&described)), &described);
        prop_assert_eq!(user(&described), made);
    }

    #[test]
    fn whoever_may_everything_is_never_refused(args in proptest::collection::vec("[a-z0-9*]{0,5}", 1..6), place in 0_usize..200) {
        let spec = &crate::command::all()[place % crate::command::all().len()];
        let args: Vec<&[u8]> = args.iter().map(|arg| arg.as_bytes()).collect();
        prop_assert_eq!(User::unlimited().check(spec, &args), Ok(()));
        if !is_for_everybody(spec) {
            prop_assert!(User::new().check(spec, &args).is_err());
        }
    }
}
