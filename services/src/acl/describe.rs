//! Users in words: the rules that would make them again.

use super::category;
use super::rule::User;
use super::selector::{KeyPattern, Selector};
use super::unit::{Unit, Units};
use crate::resp::ReplyWriter;

impl Selector {
    /// The rules of its commands: `+@all` or `-@all`, the categories that bring it nearest, and single commands for the
    /// rest. As Redis finds them.
    pub(super) fn command_rules(&self) -> String {
        let begins_with_all = self.begins_with_all;
        let (sign, mut rules) =
            if begins_with_all { ('-', vec!["+@all".to_owned()]) } else { ('+', vec!["-@all".to_owned()]) };
        let mut told = if begins_with_all { Units::everything() } else { Units::default() };
        // What no category has told yet.
        let mut left = self.commands;
        let mut untried: Vec<usize> = (0..category::NAMES.len()).collect();
        loop {
            let mut best: Option<(usize, usize, usize)> = None;
            for place in &untried {
                let (on, off) = left.count(1 << place);
                let (differ, same) = if begins_with_all { (on, off) } else { (off, on) };
                let is_better =
                    best.is_none_or(|(_, least, most)| differ < least || (differ == least && same > most));
                if same > differ && is_better {
                    best = Some((*place, differ, same));
                }
            }
            let Some((place, ..)) = best else { break };
            untried.retain(|other| *other != place);
            told.set_category(1 << place, !begins_with_all);
            left.set_category(1 << place, begins_with_all);
            rules.push(format!("{sign}@{}", category::NAMES[place]));
        }
        self.tell_single_commands(&mut told, &mut rules);
        rules.join(" ")
    }

    fn tell_single_commands(&self, told: &mut Units, rules: &mut Vec<String>) {
        for unit in Unit::all() {
            let is_in = self.commands.has(unit);
            if told.has(unit) != is_in {
                rules.push(format!("{}{}", if is_in { '+' } else { '-' }, unit.name()));
                told.set(unit, is_in);
                unit.subcommands().for_each(|unit| told.set(unit, is_in));
            }
            for argument in self.first_args.get(&unit).into_iter().flatten().filter(|_| !is_in) {
                rules.push(format!("+{}|{}", unit.name(), String::from_utf8_lossy(argument)));
            }
        }
        assert_eq!(*told, self.commands, "rules that mean something else must not be told");
    }

    fn key_rules(&self) -> Vec<Vec<u8>> {
        if self.all_keys { vec![b"~*".to_vec()] } else { self.keys.iter().map(KeyPattern::rule).collect() }
    }

    fn channel_rules(&self) -> Vec<Vec<u8>> {
        let with_sign = |pattern: &Vec<u8>| [&b"&"[..], pattern].concat();
        if self.all_channels { vec![b"&*".to_vec()] } else { self.channels.iter().map(with_sign).collect() }
    }

    fn describe(&self) -> Vec<u8> {
        let mut rules = self.key_rules();
        if !self.all_channels {
            rules.push(b"resetchannels".to_vec());
        }
        rules.extend(self.channel_rules());
        rules.push(self.command_rules().into_bytes());
        rules.join(&b" "[..])
    }

    /// Its fields in `ACL GETUSER`.
    fn write_fields(&self, reply: &mut ReplyWriter<'_>) {
        reply.bulk(b"commands");
        reply.bulk(self.command_rules().as_bytes());
        reply.bulk(b"keys");
        reply.bulk(&self.key_rules().join(&b" "[..]));
        reply.bulk(b"channels");
        reply.bulk(&self.channel_rules().join(&b" "[..]));
    }
}

impl KeyPattern {
    fn rule(&self) -> Vec<u8> {
        let kind: &[u8] = match (self.allows.reads, self.allows.writes) {
            (true, true) => b"~",
            (true, false) => b"%R~",
            (false, _) => b"%W~",
        };
        [kind, &self.pattern].concat()
    }
}

impl User {
    fn flags(&self) -> Vec<&'static str> {
        let mut flags = vec![if self.is_on { "on" } else { "off" }];
        flags.extend(self.no_password.then_some("nopass"));
        flags.extend(self.skips_sanitizing.then_some("skip-sanitize-payload"));
        flags
    }

    /// The rules that make it, as `ACL LIST` tells them.
    pub fn describe(&self) -> Vec<u8> {
        let mut rules: Vec<Vec<u8>> = self.flags().into_iter().map(|flag| flag.as_bytes().to_vec()).collect();
        rules.extend(self.passwords.iter().map(|password| format!("#{}", password.hex()).into_bytes()));
        rules.push(self.root.describe());
        let in_parentheses = |selector: &Selector| [&b"("[..], &selector.describe(), b")"].concat();
        rules.extend(self.others.iter().map(in_parentheses));
        rules.join(&b" "[..])
    }

    /// `ACL GETUSER`.
    pub(super) fn write(&self, reply: &mut ReplyWriter<'_>) {
        reply.map(6);
        reply.bulk(b"flags");
        let flags = self.flags();
        reply.set(flags.len());
        flags.iter().for_each(|flag| reply.bulk(flag.as_bytes()));
        reply.bulk(b"passwords");
        reply.array(self.passwords.len());
        self.passwords.iter().for_each(|password| reply.bulk(password.hex().as_bytes()));
        self.root.write_fields(reply);
        reply.bulk(b"selectors");
        reply.array(self.others.len());
        for selector in &self.others {
            reply.map(3);
            selector.write_fields(reply);
        }
    }
}
