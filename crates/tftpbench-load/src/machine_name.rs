//! What a machine calls itself: the variables of its number in a name. A pure function of template and number, and so
//! the same on every host. It must never look at what the names are for.

use std::fmt::Write as _;

use crate::contents::mix64;

/// Machines have addresses in 10.0.0.0/8 without its first and its last, which are the network's and the broadcast.
const NETWORK: u32 = 0x0a00_0000;
const HOSTS: u64 = (1 << 24) - 2;
/// Locally administered, so that it is no vendor's.
const MAC_BASE: u64 = 0x0200_0000_0000;
/// Knuth's multiplicative hash (TAOCP 6.4): odd, so that 2^32 machines have serial numbers that differ.
const SERIAL_STEP: u32 = 2_654_435_769;
/// Tell the two halves of a UUID from each other.
const UUID_HALVES: [u64; 2] = [0x7575_6964_0000_0001, 0x7575_6964_0000_0002];

/// The name that machine `number` asks for: `{n}`, `{mac}`, `{mac-}`, `{mac:}`, `{MAC}`, `{ip_hex}`, `{ip_hex[K]}`,
/// `{uuid}` and `{serial}` filled in. An error names what is no such variable.
pub fn machine_name(template: &str, number: u64) -> Result<String, String> {
    let mut name = String::with_capacity(template.len() + 32);
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        let (variable, behind) = after.split_once('}').ok_or_else(|| unknown(after))?;
        name.push_str(before);
        fill_in(&mut name, variable, number).ok_or_else(|| unknown(variable))?;
        rest = behind;
    }
    name.push_str(rest);
    Ok(name)
}

fn unknown(variable: &str) -> String {
    format!(
        "{{{variable}}} is no variable of a machine; allowed: {{n}}, {{mac}}, {{mac-}}, {{mac:}}, {{MAC}}, {{ip_hex}}, \
         {{ip_hex[1]}} to {{ip_hex[8]}}, {{uuid}}, {{serial}}"
    )
}

/// Writing to a String cannot fail, so `None` is a variable that is not known.
fn fill_in(name: &mut String, variable: &str, number: u64) -> Option<()> {
    let mac = MAC_BASE.wrapping_add(number) & 0xffff_ffff_ffff;
    match variable {
        "n" => write!(name, "{number}"),
        "mac" => write!(name, "{mac:012x}"),
        "MAC" => write!(name, "{mac:012X}"),
        "mac-" => return separated(name, mac, '-'),
        "mac:" => return separated(name, mac, ':'),
        "ip_hex" => write!(name, "{:08X}", address(number)),
        "uuid" => return uuid(name, number),
        "serial" => {
            write!(name, "{:08x}", (number as u32).wrapping_mul(SERIAL_STEP).wrapping_add(SERIAL_STEP))
        }
        _ => {
            let digits = variable.strip_prefix("ip_hex[")?.strip_suffix(']')?;
            let digits = digits.parse::<usize>().ok().filter(|digits| (1..=8).contains(digits))?;
            name.push_str(&format!("{:08X}", address(number))[..digits]);
            Ok(())
        }
    }
    .ok()
}

fn address(number: u64) -> u32 {
    NETWORK + 1 + (number % HOSTS) as u32
}

fn separated(name: &mut String, mac: u64, separator: char) -> Option<()> {
    for (index, byte) in mac.to_be_bytes()[2..].iter().enumerate() {
        if index > 0 {
            name.push(separator);
        }
        write!(name, "{byte:02x}").ok()?;
    }
    Some(())
}

/// A UUID of version 4 (RFC 9562 section 5.4), whose random bits are those of the number.
fn uuid(name: &mut String, number: u64) -> Option<()> {
    let [high, low] = UUID_HALVES.map(|half| mix64(number ^ mix64(half)));
    let high = high & !0xf000 | 0x4000;
    let low = low & !(0b11 << 62) | 0b10 << 62;
    write!(
        name,
        "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        high >> 32,
        high >> 16 & 0xffff,
        high & 0xffff,
        low >> 48,
        low & 0xffff_ffff_ffff
    )
    .ok()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn named(template: &str, number: u64) -> String {
        machine_name(template, number).unwrap()
    }

    #[test]
    fn variables_of_a_machine_are_functions_of_its_number() {
        assert_eq!(named("{n}/{mac}", 10), "10/02000000000a");
        assert_eq!(
            named("01-{mac-} {mac:} {MAC}", 255),
            "01-02-00-00-00-00-ff 02:00:00:00:00:ff 0200000000FF"
        );
        assert_eq!(named("{ip_hex} {ip_hex[8]} {ip_hex[1]} {ip_hex[7]}", 0), "0A000001 0A000001 0 0A00000");
        assert_eq!(named("{ip_hex}", HOSTS - 1), "0AFFFFFE", "the last host, not the broadcast");
        assert_eq!(named("{ip_hex}", HOSTS), "0A000001");
        assert_eq!(named("plain", 3), "plain");
        let uuid = named("{uuid}", 7);
        assert_eq!((uuid.len(), &uuid[14..15]), (36, "4"), "{uuid}");
        assert!("89ab".contains(&uuid[19..20]), "{uuid}");
    }

    #[test]
    fn machines_have_names_of_their_own() {
        for template in ["{mac}", "{ip_hex}", "{uuid}", "{serial}"] {
            let names: HashSet<String> = (0..20_000).map(|number| named(template, number)).collect();
            assert_eq!(names.len(), 20_000, "{template}");
            assert!(names.iter().all(|name| name.len() == named(template, 0).len()), "{template}");
        }
    }

    #[test]
    fn what_is_no_variable_is_named() {
        for (template, named) in [
            ("{ip}", "{ip}"),
            ("a{", "{}"),
            ("{ip_hex[9]}", "{ip_hex[9]}"),
            ("{ip_hex[0]}", "[0]"),
            ("{}", "{}"),
        ] {
            let text = machine_name(template, 0).unwrap_err();
            assert!(text.contains(named) && text.contains("no variable"), "{text}");
        }
    }
}
