//! What a backup consists of: `manifest.json`, and beside it the checksums of all files in a form that `sha256sum -c` reads.

use super::Moment;
use sha2::{Digest, Sha256};
use std::fmt::Write;

/// The manifest's name. A folder without it is no whole backup.
pub const MANIFEST: &str = "manifest.json";
/// The name of the file with the checksums.
pub const SUMS: &str = "SHA256SUMS";
const FORMAT: &str = "flotilla-backup";
const VERSION: u32 = 1;

/// Why a manifest can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// It makes no sense.
    #[error("{MANIFEST} makes no sense: {0}")]
    Malformed(String),
    /// It is of a backup of another version.
    #[error("{MANIFEST}: the backup is of version {0}, and this program reads version {VERSION}")]
    Version(u64),
    /// It isn't the one that was written.
    #[error("{MANIFEST} isn't what its checksum in {SUMS} says")]
    Damaged,
    /// The checksums aren't those of the manifest.
    #[error("{SUMS} isn't what {MANIFEST} says, at line {0}")]
    Sums(usize),
}

/// What is known of one shard.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShardRecord {
    /// Its number.
    pub shard: u16,
    /// Its file; none if it has no key.
    pub file: Option<String>,
    /// Bytes of the file.
    pub file_bytes: u64,
    /// The file's SHA-256, in hexadecimal digits.
    pub sha256: String,
    /// Keys in it, those included whose time had come and that hadn't been removed yet.
    pub keys: u64,
    /// Bytes of keys and values.
    pub bytes: u64,
    /// No version in the shard was higher.
    pub version_max: u64,
    /// The group that served it.
    pub group: u64,
    /// It is as it was after this entry of the group's log.
    pub index: u64,
    /// That entry's term.
    pub term: u64,
    /// The group's clock then, milliseconds since 1970.
    pub clock_ms: u64,
}

/// A whole backup.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    format: String,
    version: u32,
    /// The cluster's name.
    pub cluster: String,
    /// When it was begun, milliseconds since 1970, by the clock of who took it.
    pub begun_ms: u64,
    /// When it was ended.
    pub ended_ms: u64,
    /// Keys of all shards.
    pub keys: u64,
    /// Bytes of all keys and values.
    pub bytes: u64,
    /// Every shard of the cluster, ascending.
    pub shards: Vec<ShardRecord>,
}

/// The file of a shard.
pub fn file_name(shard: u16) -> String {
    format!("shard-{shard:05}.backup")
}

/// Whether a file is one that an unfinished backup may have left.
pub fn is_ours(name: &str) -> bool {
    let name = name.strip_suffix(".unfinished").unwrap_or(name);
    let number = name.strip_prefix("shard-").and_then(|rest| rest.strip_suffix(".backup"));
    let is_shard =
        number.and_then(|number| number.parse().ok()).is_some_and(|shard| file_name(shard) == name);
    is_shard || [MANIFEST, SUMS].contains(&name)
}

/// In hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

impl ShardRecord {
    /// What its file must say about itself.
    pub fn moment(&self, shards: u16) -> Moment {
        let Self { shard, group, index, term, clock_ms, .. } = *self;
        Moment { shard, shards, group, index, term, clock_ms }
    }
}

impl Manifest {
    /// Of these shards, which are put in order.
    pub fn new(cluster: String, (begun_ms, ended_ms): (u64, u64), mut shards: Vec<ShardRecord>) -> Self {
        shards.sort_by_key(|it| it.shard);
        let keys = shards.iter().map(|it| it.keys).sum();
        let bytes = shards.iter().map(|it| it.bytes).sum();
        let format = FORMAT.to_owned();
        Self { format, version: VERSION, cluster, begun_ms, ended_ms, keys, bytes, shards }
    }

    /// How many shards there are.
    ///
    /// # Panics
    /// It has more than a cluster can have, which no manifest that was read or made from a cluster has.
    pub fn shards_total(&self) -> u16 {
        u16::try_from(self.shards.len()).expect("checked when it was read")
    }

    /// The bytes of `manifest.json` and of `SHA256SUMS`.
    pub fn encode(&self) -> (Vec<u8>, Vec<u8>) {
        let mut manifest = serde_json::to_vec_pretty(self).expect("plain data");
        manifest.push(b'\n');
        let sums = self.sums(&manifest);
        (manifest, sums)
    }

    fn sums(&self, manifest: &[u8]) -> Vec<u8> {
        let mut sums = String::new();
        for shard in &self.shards {
            if let Some(file) = &shard.file {
                let _ = writeln!(sums, "{}  {file}", shard.sha256);
            }
        }
        let _ = writeln!(sums, "{}  {MANIFEST}", hex(&Sha256::digest(manifest)));
        sums.into_bytes()
    }

    /// Reads `manifest.json` and `SHA256SUMS`.
    ///
    /// # Errors
    /// [`ManifestError`].
    pub fn decode(manifest: &[u8], sums: &[u8]) -> Result<Self, ManifestError> {
        let sum = hex(&Sha256::digest(manifest));
        let last = format!("{sum}  {MANIFEST}\n");
        if !sums.ends_with(last.as_bytes()) {
            return Err(ManifestError::Damaged);
        }
        let malformed = |error: &dyn ToString| ManifestError::Malformed(error.to_string());
        let any: serde_json::Value = serde_json::from_slice(manifest).map_err(|error| malformed(&error))?;
        if any.get("format").and_then(serde_json::Value::as_str) != Some(FORMAT) {
            return Err(malformed(&"it isn't that of a backup"));
        }
        let version = any.get("version").and_then(serde_json::Value::as_u64).unwrap_or(0);
        if version != u64::from(VERSION) {
            return Err(ManifestError::Version(version));
        }
        let this: Self = serde_json::from_value(any).map_err(|error| malformed(&error))?;
        this.check().map_err(|what| malformed(&what))?;
        let expected = this.sums(manifest);
        if expected != sums {
            let lines =
                |bytes: &[u8]| bytes.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect::<Vec<_>>();
            let (expected, found) = (lines(&expected), lines(sums));
            let same = expected.iter().zip(&found).take_while(|(one, other)| one == other).count();
            return Err(ManifestError::Sums(same + 1));
        }
        Ok(this)
    }

    fn check(&self) -> Result<(), String> {
        let total = self.shards.len();
        if total == 0 || total > usize::from(crate::slot::SLOTS) {
            return Err(format!("it has {total} shards"));
        }
        for (number, shard) in (0_u16..).zip(&self.shards) {
            let name = file_name(number);
            let has_file = shard.file.as_ref() == Some(&name) && shard.keys > 0;
            let has_none = shard.file.is_none() && shard.keys == 0 && shard.bytes == 0;
            if shard.shard != number || !(has_file || has_none) {
                return Err(format!(
                    "shard {number} isn't where it should be, or has not the file that it should"
                ));
            }
        }
        let sum = |of: fn(&ShardRecord) -> u64| {
            self.shards.iter().try_fold(0_u64, |sum, it| sum.checked_add(of(it)))
        };
        if sum(|it| it.keys) != Some(self.keys) || sum(|it| it.bytes) != Some(self.bytes) {
            return Err("its shards don't make its keys and bytes".to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(shard: u16, keys: u64) -> ShardRecord {
        let file = (keys > 0).then(|| file_name(shard));
        let sha256 = if keys > 0 { "ab".repeat(32) } else { String::new() };
        ShardRecord {
            shard,
            file,
            file_bytes: 100 * keys,
            sha256,
            keys,
            bytes: 9 * keys,
            version_max: 3,
            group: 1,
            index: 5,
            term: 2,
            clock_ms: 7,
        }
    }

    fn manifest() -> Manifest {
        Manifest::new("test".to_owned(), (1, 2), vec![record(1, 4), record(0, 0), record(2, 1)])
    }

    #[test]
    fn what_is_written_is_read() {
        let (bytes, sums) = manifest().encode();
        assert_eq!(Manifest::decode(&bytes, &sums), Ok(manifest()));
        assert_eq!((manifest().keys, manifest().bytes), (5, 45));
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let (bytes, sums) = manifest().encode();
        for (place, bit) in
            (0..bytes.len() + sums.len()).flat_map(|place| (0..8).map(move |bit| (place, bit)))
        {
            let (mut bytes, mut sums) = (bytes.clone(), sums.clone());
            match place.checked_sub(bytes.len()) {
                None => bytes[place] ^= 1 << bit,
                Some(place) => sums[place] ^= 1 << bit,
            }
            assert!(Manifest::decode(&bytes, &sums).is_err(), "byte {place}, bit {bit}");
        }
    }

    /// A manifest with other words, and the right checksums.
    fn changed(from: &str, to: &str) -> Result<Manifest, ManifestError> {
        let text = String::from_utf8(manifest().encode().0).unwrap();
        assert!(text.contains(from));
        let bytes = text.replacen(from, to, 1).into_bytes();
        let sums = manifest().sums(&bytes);
        Manifest::decode(&bytes, &sums)
    }

    #[test]
    fn what_can_t_be_used_is_said() {
        assert_eq!(changed("\"version\": 1", "\"version\": 2"), Err(ManifestError::Version(2)));
        assert!(matches!(changed("flotilla-backup", "other"), Err(ManifestError::Malformed(_))));
        assert!(matches!(
            changed("shard-00001.backup", "../../etc/passwd"),
            Err(ManifestError::Malformed(_))
        ));
        assert!(matches!(changed("\"keys\": 5", "\"keys\": 6"), Err(ManifestError::Malformed(_))));
        assert!(matches!(
            changed("\"keys\": 4", "\"keys\": 18446744073709551615"),
            Err(ManifestError::Malformed(_))
        ));
        assert!(matches!(changed("\"shard\": 2", "\"shard\": 1"), Err(ManifestError::Malformed(_))));
        assert_eq!(changed(&"ab".repeat(32), &"cd".repeat(32)), Err(ManifestError::Sums(1)));
    }

    #[test]
    fn files_of_an_unfinished_backup_are_known() {
        for name in
            ["shard-00007.backup", "shard-00007.backup.unfinished", "SHA256SUMS", "manifest.json.unfinished"]
        {
            assert!(is_ours(name), "{name}");
        }
        for name in ["shard-7.backup", "shard-00007.backup.old", "notes.txt", ".unfinished", "shard-.backup"]
        {
            assert!(!is_ours(name), "{name}");
        }
    }
}
