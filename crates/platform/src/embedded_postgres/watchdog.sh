# Keeps the server from outliving the program that started it: standard input is a pipe that only that program
# holds open, so its end is the end of the program, even by SIGKILL. Arguments: the folder to remove afterwards
# (empty: none; a kept one is the next server's already), its socket folder, the server's command line.
# Ignores the signals of terminals and service managers because it has to be the last to go. Collects every
# process it forks, because in a container there may be nobody else who does.
trap '' HUP INT TERM
thrown_away=$1
socket_folder=$2
shift 2
exec 3<&0 </dev/null
"$@" 3<&- &
server=$!
{
    read -r _ <&3
    sleep 5 &
    patience=$!
    trap 'kill -KILL "$patience"; wait "$patience"; exit' USR1
    if [ -n "$thrown_away" ]; then kill -QUIT "$server"; else kill -INT "$server"; fi
    wait "$patience"
    kill -QUIT "$server"
} 2>/dev/null &
watcher=$!
exec 3<&-
wait "$server"
status=$?
{ kill -USR1 "$watcher"; wait "$watcher"; } 2>/dev/null
if [ -n "$thrown_away" ]; then rm -rf -- "$thrown_away" "$socket_folder"; fi 2>/dev/null
exit "$status"
