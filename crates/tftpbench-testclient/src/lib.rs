//! For tests only: what every bundled server must do, run over real sockets against each of them.
//!
//! One list of behaviours, so that the servers cannot drift apart. No sleeps, no fixed ports, every wait is bounded.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test support: a panic is the report")]
#![allow(clippy::print_stderr, reason = "a skipped behaviour says why")]

mod client;
mod server;

/// What every bundled server must do. Each function takes a server's `run` and panics where it falls short.
pub mod behaviours {
    pub mod addresses;
    pub mod files;
    pub mod hostility;
    pub mod recovery;
    pub mod running;
    pub mod sharing;
    pub mod transfers;
    pub mod uploads;
}

pub use client::{Client, Denied, RRQ, WRQ, data, pattern, request};
pub use server::{Folder, Ready, Run, TestServer};

/// Turns every behaviour into a `#[test]` of one server. `$run` is the server's `run`.
#[macro_export]
macro_rules! behaviours {
    ($run:path) => {
        $crate::behaviours! { @modules $run;
            transfers {
                sizes_around_the_block_border_survive_both_ways
                files_past_65535_blocks_survive_both_ways
                every_blksize_survives_both_ways
                every_blksize_in_every_window_survives_both_ways
                a_file_of_whole_windows_ends_with_an_empty_block
                an_empty_file_survives_both_ways_with_any_options
                a_blksize_above_the_limit_is_lowered
                a_window_is_acknowledged_once
                a_window_of_hundreds_of_blocks_survives_both_ways
                tsize_tells_and_echoes_the_size
                tsize_of_a_text_counts_what_crosses_the_wire
                a_long_text_is_served_without_its_size
                blocks_of_a_text_are_the_same_when_they_are_sent_again
                no_timer_runs_out_where_nothing_is_lost
                a_window_above_the_limit_is_lowered
                the_timeout_option_is_echoed_and_honoured
                every_option_has_the_bounds_of_its_rfc
                options_that_cannot_be_granted_are_left_out
                names_of_modes_and_options_may_be_in_any_case
                netascii_survives_both_ways
                ipv6_and_mapped_ipv4_are_served
                many_transfers_run_at_once
                one_port_may_ask_again_and_again
                curl_is_granted_all_that_it_asks_for
                a_refused_oack_ends_the_transfer_unanswered
                a_request_right_behind_a_refused_oack_is_answered
            }
            recovery {
                a_lost_datagram_is_sent_again
                a_repeated_ack_triggers_nothing
                a_repeated_last_block_is_acknowledged_again
                a_repeated_block_is_stored_once
                a_gap_in_a_window_is_reported_once
                an_ack_inside_a_window_is_where_the_next_one_begins
                a_repeated_request_is_answered_until_something_is_acknowledged
                a_request_repeated_for_ever_draws_a_few_openings
                a_client_that_begins_again_is_served_anew
                a_writer_that_begins_again_is_served_anew
                a_repeated_request_changes_nothing_while_the_transfer_moves
                a_late_copy_of_an_older_request_changes_nothing
                a_copy_in_the_middle_changes_nothing_although_the_client_pauses_after_it
                a_copy_before_the_last_block_of_an_upload_asks_for_nothing
                a_late_copy_of_a_request_that_has_ended_changes_nothing
                another_request_of_the_same_port_ends_the_old_transfer
                another_request_of_the_same_port_needs_no_place_of_its_own
                a_stranger_gets_error_5_and_the_transfer_goes_on
                a_stranger_writes_nothing_into_an_upload
                an_error_of_the_client_ends_the_transfer_unanswered
                a_silent_client_is_given_up
                a_silent_client_draws_one_window
            }
            addresses {
                every_answer_comes_from_the_address_that_was_asked
                a_request_to_a_broadcast_address_is_ignored
                a_stray_datagram_to_a_broadcast_address_is_ignored
                the_next_transfer_of_a_client_has_another_port
                a_late_ack_of_the_last_transfer_moves_nothing
                acks_to_every_port_draw_little_to_a_forged_address
            }
            files {
                nothing_outside_the_root_is_read
                nothing_outside_the_root_is_written
                a_folder_that_turns_into_a_link_meanwhile_never_leads_outside
                what_is_no_regular_file_is_refused
                a_name_may_hold_any_byte_but_nul
                folders_below_the_root_are_served
                a_path_as_long_as_a_request_is_served
                a_file_truncated_while_served_is_an_error
                a_file_whose_names_change_while_served_is_served_to_its_end
                a_file_changed_in_place_while_served_is_an_error
                the_memory_store_serves_what_it_read_first
                the_memory_store_makes_no_file_of_two_states
            }
            sharing {
                readers_of_one_file_at_once_get_it_whole
                readers_of_many_files_at_once_get_theirs
                a_shared_file_truncated_while_served_is_an_error
                a_shared_file_whose_names_change_is_served_to_its_end
                a_shared_file_changed_in_place_while_served_is_an_error
                what_one_reader_was_sent_another_gets_too
                a_file_is_open_once_for_all_its_readers
            }
            uploads {
                writing_is_off_unless_asked_for
                an_existing_file_is_kept
                an_existing_file_is_replaced_with_overwrite
                an_empty_upload_empties_a_file
                an_announced_size_is_no_promise
                a_file_that_appears_meanwhile_is_kept
                an_upload_has_its_name_only_when_complete
                eight_uploads_of_one_name_at_once_are_one_whole_file
                an_aborted_upload_leaves_nothing
                a_silent_upload_leaves_nothing
                a_full_disk_is_error_3_and_leaves_nothing
                a_size_that_cannot_fit_is_error_3
                the_memory_store_keeps_uploads_off_the_disk
                windows_that_arrive_as_one_message_are_stored_whole
            }
            hostility {
                malformed_requests_are_answered_once_or_not_at_all
                requests_padded_with_nuls_are_served
                packets_that_are_no_request_never_start_anything
                requests_of_65_kilobytes_are_malformed
                garbage_on_a_transfer_does_not_end_it
                blocks_from_the_future_are_ignored
                a_block_above_blksize_is_error_4
                random_datagrams_never_get_more_than_one_short_answer
            }
            running {
                transfers_beyond_the_bound_are_refused
                a_stop_lets_transfers_finish_and_refuses_new_ones
                a_stop_ends_transfers_when_their_grace_is_over
                a_second_stop_ends_transfers_at_once
                a_taken_port_is_one_clear_line
                a_missing_root_is_one_clear_line
                too_many_transfers_for_the_open_files_is_one_clear_line
                the_packet_log_changes_nothing
            }
        }
    };
    (@modules $run:path; $($module:ident { $($name:ident)* })*) => {
        $(mod $module {
            $(#[test]
            fn $name() {
                $crate::behaviours::$module::$name(|config, stop, ready| $run(config, stop, ready));
            })*
        })*
    };
}
