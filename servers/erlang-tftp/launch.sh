#!/bin/sh
# Starts Erlang's TFTP server, which comes as a library without a command, or with no arguments prints its version.
# Called through server.yaml alone:
#
#     sh launch.sh ERL PEER [EMULATOR_FLAG...] [-extra HOST PORT ROOT SOCKET_OPTIONS]

# The transfers have the options of the listening socket, its address included. An evaluation that never ends keeps the
# server linked to the start of the emulator, so that the emulator ends when the server does.
serve='
case init:get_plain_arguments() of
    [] ->
        case application:load(tftp) of
            ok -> ok;
            {error, _} -> io:format("this Erlang has no application tftp~n"), halt(1)
        end,
        {ok, Version} = application:get_key(tftp, vsn),
        io:format("tftp ~s, Erlang/OTP ~s~n", [Version, erlang:system_info(otp_release)]),
        halt(0);
    [Host, Port, Root, Words] ->
        {ok, Ip} = inet:parse_address(Host),
        Family = case Ip of {_, _, _, _} -> inet; _ -> inet6 end,
        {ok, Tokens, _} = erl_scan:string(Words ++ "."),
        {ok, Options} = erl_parse:parse_term(Tokens),
        {ok, _} = tftp:start([
            {host, Ip},
            {port, list_to_integer(Port)},
            {udp, [Family, {ip, Ip} | Options]},
            {callback, {"", tftp_file, [{root_dir, Root}]}}
        ]),
        receive after infinity -> ok end
end.'

erl=$1 unpacked=$2/usr/lib
shift 2
if [ -x "$unpacked/erlang/bin/erl" ]; then
    # The folder that erl was built for is written into it. Where it was unpacked elsewhere, this does what it does.
    for erl in "$unpacked"/erlang/erts-*/bin/erlexec; do
        export ROOTDIR="$unpacked/erlang" BINDIR="${erl%/*}" EMU=beam PROGNAME=erl
    done
    export LD_LIBRARY_PATH="$(echo "$unpacked"/*-linux-*)"
fi
export ERL_CRASH_DUMP_BYTES=0 # no file is left where it starts or ends badly
exec "$erl" -noinput -boot no_dot_erlang -eval "$serve" "$@"
