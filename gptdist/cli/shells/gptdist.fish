# Completion of gptdist in fish; `gptdist completion fish` writes this file.

@TABLE@

# Print each of entries 'word:kind:text' with its text.
function __gptdist_describe
  for entry in $argv
    set -l parts (string split --max 2 : -- $entry)
    printf '%s\t%s\n' $parts[1] $parts[3]
  end
end

# Print what is of kind $kind, each with $before in front; $cur is what stands behind that.
function __gptdist_value --argument-names kind before cur
  set kind (string replace --regex '\*$' '' -- $kind)
  switch "$kind"
    case '@*'
      for word in (string split , -- (string sub --start 2 -- $kind))
        echo $before$word
      end
    case 'keys-*'
      __gptdist_key (string replace keys- '' -- $kind) $cur
    case dir
      for path in $cur*/
        echo $before$path
      end
    case file
      for path in $cur*
        test -d $path; and set path $path/
        echo $before$path
      end
    case yaml
      for path in $cur*/ $cur*.yaml $cur*.yml
        echo $before$path
      end
  end
end

# Keys of a config up to the next dot, or the values of the one that stands before '='.
function __gptdist_key --argument-names kind cur
  set -l found
  for entry in (__gptdist_keys $kind)
    set -l parts (string split --max 2 : -- $entry)
    set -l name $parts[1]
    if string match --quiet -- "$name=*" $cur
      __gptdist_value $parts[2] $name= (string replace -- $name= '' $cur)
      return
    end
    if string match --quiet -- "$cur*" $name
      set -l rest (string sub --start (math (string length -- "$cur") + 1) -- $name)
      if string match --quiet -- '*.*' $rest
        set name $cur(string split --max 1 . -- $rest)[1].
        contains -- $name $found; or echo $name
      else
        printf '%s=\t%s\n' $name $parts[3]
      end
      set --append found $name
    end
  end
end

function __gptdist_complete
  set -l typed (commandline --tokenize --cut-at-cursor --current-process)
  set -l cur (commandline --current-token --cut-at-cursor)
  set -l gd_subs
  set -l gd_options
  set -l gd_values
  set -l path ''
  set -l pending ''
  set -l position 1
  __gptdist_command ''
  for word in $typed[2..-1]
    if string match --quiet -- '-*' $word
      set pending ''
      for entry in $gd_options
        set -l parts (string split --max 2 : -- $entry)
        test "x$parts[1]" = "x$word"; and test "x$parts[2]" != x-; and set pending $parts[2]
      end
    else if test -n "$pending"
      string match --quiet -- '*\*' $pending; or set pending ''
    else if set --query gd_subs[1]
      set path (string trim -- "$path $word")
      __gptdist_command $path
    else
      set position (math $position + 1)
    end
  end
  if string match --quiet -- '-*=*' $cur
    set -l sides (string split --max 1 = -- $cur)
    for entry in $gd_options
      set -l parts (string split --max 2 : -- $entry)
      test "x$parts[1]" = "x$sides[1]"; and __gptdist_value $parts[2] $sides[1]= $sides[2]
    end
  else if string match --quiet -- '-*' $cur
    __gptdist_describe $gd_options
  else if test -n "$pending"
    __gptdist_value $pending '' $cur
  else if set --query gd_subs[1]
    __gptdist_describe $gd_subs
  else if set --query gd_values[1]
    if test $position -gt (count $gd_values)
      set position (count $gd_values)
      string match --quiet -- '*\*' $gd_values[$position]; or return
    end
    __gptdist_value $gd_values[$position] '' $cur
  end
end

complete --command gptdist --no-files --arguments '(__gptdist_complete)'
